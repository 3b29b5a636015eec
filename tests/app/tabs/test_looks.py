"""What the Look inside tab shows: every character once, in the colour of the numbers behind it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from app.tabs.inside.looks import LONGEST, Looks, in_line
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

KINDS = ("char", "byte", "bpe", "word", "unigram")


@pytest.fixture(scope="module")
def models():
    made = {}
    for kind in KINDS:
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([some_text(3000) + "naïve 中文 😀\n" * 9]), 300)
        config = ModelConfig(cell="lstm", layers=2, hidden_size=16, embedding_size=16)
        made[kind] = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)
    return made


TEXTS = st.text(st.sampled_from("The sea was calm\n ,.ï中😀"), min_size=1, max_size=60).map("sea ".__add__)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=25, deadline=None)
def test_every_view_shows_the_whole_text_once(models, kind, text):
    look = Looks().of(models[kind], text)
    for view in (look.surprise(), look.surprise_of_words(), look.unit(1, "c", 3)):
        assert "".join(view["tokens"]) == text
        assert len(view["levels"]) == len(view["tooltips"]) == len(view["tokens"])
    for of_words in (False, True):
        count = len((look.surprise_of_words() if of_words else look.surprise())["tokens"])
        assert look.characters(0, count, of_words) == (0, len(text))
        borders = [look.characters(n, n + 1, of_words) for n in range(count)]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(borders))


def test_words_begin_where_words_begin_and_have_their_bits(models):
    look = Looks().of(models["char"], "  The sea\nwas")
    assert look.surprise_of_words()["tokens"] == ["  ", "The ", "sea\n", "was"]
    bits = look.scored.bits
    assert look.surprise_of_words()["tooltips"][1:] == [
        f"{bits[2:5].sum():.1f} bits", f"{bits[6:9].sum():.1f} bits", f"{bits[10:].sum():.1f} bits"
    ]  # fmt: skip


def test_a_view_of_a_unit_is_warm_where_it_is_positive_and_cold_where_it_is_negative(models):
    look = Looks().of(models["char"], "The sea was calm")
    values, levels = look.trace.values(0, "h", 2), np.array(look.unit(0, "h", 2)["levels"])
    assert (np.sign(levels)[np.abs(values) > 0.06] == np.sign(values)[np.abs(values) > 0.06]).all()
    assert (np.abs(levels) <= 9).all()


def test_a_text_is_read_once_for_all_questions(models, monkeypatch):
    looks = Looks()
    assert looks.of(models["char"], "The sea") is looks.of(models["char"], "The sea")
    assert looks.of(models["char"], "The sea") is not looks.of(models["byte"], "The sea")
    with pytest.raises(UserError, match="shorten it"):
        looks.of(models["char"], "x" * (LONGEST + 1))


def test_parts_that_are_not_there_are_refused(models):
    look = Looks().of(models["char"], "The sea")
    for start, end in ((-1, 1), (0, 0), (3, 2), (0, 8), (10**9, 10**9 + 1)):
        with pytest.raises(UserError, match="look inside once more"):
            look.characters(start, end, False)
    with pytest.raises(UserError, match="choose what"):
        look.found("nonsense", "")


def test_control_characters_are_seen_on_one_line():
    assert in_line(["a\n\t", "\x1b[31m"]) == "a↵⇥␛[31m"
