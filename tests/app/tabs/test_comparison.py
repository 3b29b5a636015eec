"""Models beside each other: what they write with one seed, how they score one text, where they disagree."""

import logging
import math
import re

import numpy as np
import pytest

import lm
from app.tabs.compare.comparison import Side, judged, perplexity, side_by_side, unknown_share
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

TEXT = "The sea was calm\nand a small boat went out.\n\nTo find where light comes from.\n"


@pytest.fixture(scope="module")
def boat(trained_run):
    return lm.load(trained_run, device="cpu")


@pytest.fixture(scope="module")
def taob(backward_run):
    return lm.load(backward_run, device="cpu")


def untrained(kind, text=None, size=60, documents=1):
    """A model that knows nothing, with its own kind of tokens; of one document, it never ends a text."""
    tokenizer = train_tokenizer(kind, [text or some_text(5000)], size, 1)
    network = RecurrentLM(ModelConfig(hidden_size=8), tokenizer.vocab_size).eval()
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": documents}})


@pytest.fixture(scope="module")
def models(boat):
    """Characters, pieces of words and words."""
    return {"boat": boat, "pieces": untrained("bpe", size=300), "words": untrained("word", size=200)}


def judge(models, text=TEXT):
    *_, last = judged(models, text)
    return last


def test_each_side_writes_what_the_model_streams_with_that_seed_and_those_settings(boat):
    sides = [Side(boat, 0.8, 0.9), Side(boat, 0.3, 1.0)]
    for _ in side_by_side(sides, "The sea ", 5, 200):
        pass
    for side in sides:
        settings = {"temperature": side.temperature, "top_p": side.top_p, "max_new_tokens": 800}
        alone = "".join(p.text for p in boat.stream("The sea ", seed=5, **settings))
        assert side.text == "The sea " + alone[:200] and side.tokens == 200 and side.complete
    assert sides[0].text != sides[1].text


def test_all_sides_grow_together_to_one_length_whatever_their_tokens(models):
    sides = [Side(model, 0.8, 1.0) for model in models.values()]
    seen = [[side.tokens for side in sides] for _ in side_by_side(sides, "The sea ", 1, 3000)]
    assert len(seen) > 3
    assert any(min(tokens) > 0 and tokens == [tokens[0]] * 3 for tokens in seen)  # a token each by turns
    assert all(3008 <= len(side.text) < 3040 for side in sides)
    assert sides[0].tokens == 3000 > sides[2].tokens


def test_nothing_is_computed_unless_it_is_read_and_closing_ends_it(boat, caplog):
    caplog.set_level(logging.INFO, "app.tabs.compare.comparison")
    sides = [Side(boat, 0.8, 1.0), Side(boat, 1.0, 1.0)]
    steps = side_by_side(sides, "The sea ", 1, 20_000)
    next(steps)
    written = [side.tokens for side in sides]
    assert all(0 < tokens < 20_000 for tokens in written)
    steps.close()
    assert [side.tokens for side in sides] == written
    assert re.fullmatch(rf"{sum(written)} tokens in .* beside each other: stopped", caplog.messages[-1])
    # Nobody else who writes with the model has to compute for them any more.
    assert next(boat.stream("The sea ", seed=1)).text and len(boat.streams._running) == 1


def test_one_that_ends_its_text_is_done_while_the_other_goes_on(boat):
    sides = [Side(untrained("char", documents=2), 1.0, 1.0), Side(boat, 0.8, 1.0)]
    for _ in side_by_side(sides, "The sea ", 1, 2000):
        pass
    assert sides[0].ended and len(sides[0].text) < 2008
    assert not sides[1].ended and len(sides[1].text) == 2008


def test_a_model_that_cannot_write_is_refused_before_anything_is_written(boat, taob):
    side = Side(boat, 0.8, 1.0)
    with pytest.raises(UserError, match="right to left"):
        next(side_by_side([side, Side(taob, 0.8, 1.0)], "The sea ", 1, 10))
    assert side.tokens == 0 and side.text == ""


def test_the_bits_of_the_words_are_those_of_the_text_for_every_kind_of_tokens(models, taob):
    judgement = judge(models | {"taob": taob})
    assert "".join(judgement.pieces()) == TEXT
    assert len(judgement.pieces()) == len(TEXT.split())
    for name, scored in judgement.scored.items():
        assert judgement.bits[name].sum() == pytest.approx(scored.bits.sum())
        assert scored.figures.bits_per_character.value == pytest.approx(scored.bits.sum() / len(TEXT))
        assert perplexity(scored) == pytest.approx(2 ** scored.bits.mean())


def test_a_words_bits_are_those_of_its_letters_and_of_the_white_space_after_it(boat):
    judgement = judge({"boat": boat})
    scores = boat.score(TEXT)
    assert [s.text for s in scores] == list(TEXT)
    bits = [-s.logprob / math.log(2) for s in scores]
    ends = np.cumsum([len(piece) for piece in judgement.pieces()])
    sums = np.add.reduceat(bits, [0, *ends[:-1]])
    assert judgement.bits["boat"] == pytest.approx(sums, abs=1e-3)


def test_the_places_of_disagreement_are_the_words_with_the_largest_difference(models):
    judgement = judge(models)
    found = judgement.disagreements(5)
    bits = np.array([judgement.bits[name] for name in models])
    spread = np.where(judgement.known, bits.max(axis=0) - bits.min(axis=0), 0)
    best = np.argsort(-spread)[:5]
    assert [d.difference for d in found] == pytest.approx(sorted(spread)[:-6:-1])
    words, lines = TEXT.split(), [1] * 4 + [2] * 6 + [4] * 6
    for one, number in zip(found, best, strict=True):
        assert one.place.text == words[number] and one.line == lines[number]
        assert TEXT[one.place.start : one.place.end] == words[number]
        assert TEXT.startswith(one.place.before[-3:] + one.place.text, one.place.start - 3) or not number
        assert one.bits == {name: pytest.approx(judgement.bits[name][number]) for name in models}


def test_a_word_that_one_model_does_not_know_is_no_disagreement(models):
    judgement = judge(models, "the sea was zyx calm")
    assert judgement.known.tolist() == [True, True, True, False, True]
    assert judgement.spread()[3] == 0
    assert "zyx" not in [d.place.text for d in judgement.disagreements()]
    assert unknown_share(judgement.scored["words"]) == pytest.approx(1 / 5)


def test_a_text_without_spaces_is_compared_character_by_character():
    chinese = "海是平静的小船出去寻找光从哪里来夜里没有人知道船会到哪里去" * 2
    models = {name: untrained("char", chinese) for name in ("one", "two")}
    judgement = judge(models, f"{chinese} 海\n平静")
    assert judgement.words.texts == [*chinese, "海", "平静"]
    assert "".join(judgement.pieces()) == f"{chinese} 海\n平静"
    assert {d.place.text for d in judgement.disagreements(3)} <= set(judgement.words.texts)
    for name, scored in judgement.scored.items():
        assert judgement.bits[name].sum() == pytest.approx(scored.bits.sum())


def test_a_long_word_is_cut_only_where_tokens_of_all_models_begin(models):
    word = "thesmallboatwentouttofindwherelightcomesfrom"
    pieces = judge({"boat": models["boat"], "pieces": models["pieces"]}, word)
    tokens = [s.text for s in models["pieces"].score(word)]
    assert pieces.words.texts == tokens and 1 < len(tokens) < len(word)
    assert judge(models, f"the sea {word}").words.texts == ["the", "sea", word]


def test_a_model_that_knows_nothing_of_a_text_is_named_and_the_others_go_on(boat):
    chinese = untrained("char", "海是平静的小船")
    judgement = judge({"boat": boat, "chinese": chinese})
    assert list(judgement.scored) == ["boat"] and "knows none" in judgement.refused["chinese"]
    assert judgement.disagreements() == []


def test_each_model_is_told_as_soon_as_it_has_scored(models):
    assert [list(j.scored) for j in judged(models, TEXT)] == [
        ["boat"], ["boat", "pieces"], ["boat", "pieces", "words"],
    ]  # fmt: skip


@pytest.mark.parametrize("text", [" \n ", "a", "a\r\nb", "\ud800 x", "\x1b␛ y", "e\u0301 \u3000x\u2028z"])
def test_odd_texts_are_compared(models, text):
    known = {name: models[name] for name in ("boat", "pieces")}
    judgement = judge(known, text)
    whole = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    if judgement.words.texts:
        assert "".join(judgement.pieces()).replace("\x1b", "␛") == whole.replace("\x1b", "␛")
        assert len(judgement.pieces()) == len(judgement.words.texts)
    assert len(judgement.disagreements()) <= len(judgement.words.texts)


def test_an_empty_text_is_an_error(boat):
    with pytest.raises(UserError, match="empty"):
        judge({"boat": boat}, "")
