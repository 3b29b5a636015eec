"""The views of the Look inside tab show every character once, in the right color."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from app.tabs.inside.analysis import MAX_LENGTH, AnalysisCache
from app.tabs.inside.results import surprising_tokens, table_file
from app.ui.token_view import on_one_line
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

KINDS = ("char", "byte", "bpe", "word", "unigram")


@pytest.fixture(scope="module")
def models():
    models = {}
    for kind in KINDS:
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([some_text(3000) + "naïve 中文 😀\n" * 9]), 300)
        config = ModelConfig(cell="lstm", layers=2, hidden_size=16, embedding_size=16)
        models[kind] = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)
    return models


def analyze(model, text):
    return AnalysisCache().get(model, text)


TEXTS = st.text(st.sampled_from("The sea was calm\n ,.ï中😀"), min_size=1, max_size=60).map("sea ".__add__)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=25, deadline=None)
def test_every_view_shows_the_whole_text_once(models, kind, text):
    analysis = analyze(models[kind], text)
    for view in (analysis.color_tokens(), analysis.color_words(), analysis.color_by_unit(1, "c", 3)):
        assert "".join(view["tokens"]) == text
        assert len(view["levels"]) == len(view["tooltips"]) == len(view["tokens"])
    count = len(analysis.tokens)
    assert analysis.characters(0, count) == (0, len(text))
    spans = [analysis.characters(n, n + 1) for n in range(count)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_the_tokens_of_a_word_and_the_whitespace_after_it_have_the_bits_of_the_word(models):
    analysis = analyze(models["char"], "  The sea\nwas")
    view, bits = analysis.color_words(), analysis.scored.bits
    sums = [bits[2:5].sum(), bits[6:9].sum(), bits[10:].sum()]
    shown = [f"{total:.1f} bits" for total in sums]
    assert view["tooltips"] == ["", "", *[shown[0]] * 4, *[shown[1]] * 4, *[shown[2]] * 3]


def test_positive_activations_are_warm_and_negative_ones_cold(models):
    analysis = analyze(models["char"], "The sea was calm")
    values = analysis.trace.values(0, "h", 2)
    levels = np.array(analysis.color_by_unit(0, "h", 2)["levels"])
    clear = np.abs(values) > 0.06
    assert (np.sign(levels)[clear] == np.sign(values)[clear]).all()
    assert (np.abs(levels) <= 9).all()


def test_a_text_is_analyzed_once_per_model(models):
    cache = AnalysisCache()
    assert cache.get(models["char"], "The sea") is cache.get(models["char"], "The sea")
    assert cache.get(models["char"], "The sea") is not cache.get(models["byte"], "The sea")


def test_a_text_over_the_limit_is_an_error(models):
    with pytest.raises(UserError, match="shorten it"):
        analyze(models["char"], "x" * (MAX_LENGTH + 1))


def test_ranges_and_properties_that_do_not_exist_are_errors(models):
    analysis = analyze(models["char"], "The sea")
    for start, end in ((-1, 1), (0, 0), (3, 2), (0, 8), (10**9, 10**9 + 1)):
        with pytest.raises(UserError, match="analyze it again"):
            analysis.characters(start, end)
    with pytest.raises(UserError, match="choose a property"):
        analysis.find_units("nonsense", "")


def test_control_characters_are_visible_on_one_line():
    assert on_one_line("a\n\t\x1b[31m") == "a↵⇥␛[31m"


def test_a_long_text_is_analyzed_page_by_page_as_a_whole(models):
    text = "The sea was calm.\n" * 1000
    cache = AnalysisCache()
    first, last = cache.get(models["char"], text), cache.get(models["char"], text, 2)
    assert first.pages == last.pages == 3 and first.scored is last.scored
    assert first.trace.text + cache.get(models["char"], text, 1).trace.text + last.trace.text == text
    bits = first.scored.bits[last.borders[2] :]
    assert last.color_tokens()["tooltips"] == [f"{b:.1f} bits, p = {2**-b:.2g}" for b in bits.tolist()]
    assert (
        last.color_words()["tooltips"][:4]
        == [f"{last.scored.per_word()['surprisal'][last.offset // 18 * 4]:.1f} bits"] * 4
    )
    with pytest.raises(UserError, match="page must be"):
        cache.get(models["char"], text, 3)


def test_values_are_in_the_language_of_the_user(models, in_chinese):
    analysis = analyze(models["word"], "The sea qqq was calm.")
    for colored in (analysis.color_tokens(), analysis.color_words()):
        assert all("比特" in tip and "bits" not in tip for tip in colored["tooltips"])
    assert "比特" in surprising_tokens(analysis) and "bits" not in surprising_tokens(analysis)


def test_unknown_tokens_are_marked_and_files_are_named_after_the_model(models):
    analysis = analyze(models["word"], "The sea qqq was calm.")
    for colored in (analysis.color_tokens(), analysis.color_words()):
        (index,) = colored["unknown"]
        assert "qqq" in colored["tokens"][index] and colored["tooltips"][index].endswith("scored as <unk>")
        assert colored["legend"]["unknown"] == "unknown, scored as <unk>"
    assert analyze(models["word"], "The sea").color_tokens()["legend"]["unknown"] == ""
    assert analysis.color_by_unit(0, "h", 0)["unknown"] == []
    for kind in ("tokens", "words"):
        name, text = table_file(analysis, 'my/"model"', kind)
        assert name == f"my--model- {kind}.tsv" and "unknown" in text.partition("\n")[0].split("\t")
