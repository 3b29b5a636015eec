"""Scores of one text under several models: sums per word, and where the models disagree."""

import math
import re

import numpy as np
import pytest

from app.tabs.compare.scoreboard import scores_table, word_details
from app.tabs.compare.scores import compare_scores, unknown_share
from lm.errors import UserError
from tests.app.tabs.compare.conftest import untrained

TEXT = "The sea was calm\nand a small boat went out.\n\nTo find where light comes from.\n"


def compare(models, text=TEXT):
    *_, last = compare_scores(models, text)
    return last


def test_the_bits_of_the_words_add_up_to_those_of_the_text_for_every_tokenizer(models, taob):
    comparison = compare(models | {"taob": taob})
    assert "".join(comparison.pieces()) == TEXT
    assert len(comparison.pieces()) == len(TEXT.split())
    for name, scored in comparison.scored.items():
        assert comparison.bits[name].sum() == pytest.approx(scored.bits.sum())
        assert scored.metrics.bits_per_character.value == pytest.approx(scored.bits.sum() / len(TEXT))
        assert scored.metrics.perplexity.value == pytest.approx(2 ** scored.bits.mean())


def test_the_bits_of_a_word_are_those_of_its_letters_and_the_whitespace_after_it(boat):
    comparison = compare({"boat": boat})
    scores = boat.score(TEXT)
    assert [s.text for s in scores] == list(TEXT)
    bits = [-s.logprob / math.log(2) for s in scores]
    ends = np.cumsum([len(piece) for piece in comparison.pieces()])
    sums = np.add.reduceat(bits, [0, *ends[:-1]])
    assert comparison.bits["boat"] == pytest.approx(sums, abs=1e-3)


def test_disagreements_are_the_words_with_the_largest_differences(models):
    comparison = compare(models)
    found = comparison.disagreements(5)
    bits = np.array([comparison.bits[name] for name in models])
    spread = np.where(comparison.known, bits.max(axis=0) - bits.min(axis=0), 0)
    best = np.argsort(-spread)[:5]
    assert [d.difference for d in found] == pytest.approx(sorted(spread)[:-6:-1])
    words, lines = TEXT.split(), [1] * 4 + [2] * 6 + [4] * 6
    for disagreement, number in zip(found, best, strict=True):
        snippet = disagreement.snippet
        assert snippet.text == words[number] and disagreement.line == lines[number]
        assert TEXT[snippet.start : snippet.end] == words[number]
        assert TEXT.startswith(snippet.before[-3:] + snippet.text, snippet.start - 3) or not number
        assert disagreement.bits == {name: pytest.approx(comparison.bits[name][number]) for name in models}


def test_a_word_unknown_to_one_model_is_no_disagreement(models):
    comparison = compare(models, "the sea was zyx calm")
    assert comparison.known.tolist() == [True, True, True, False, True]
    assert comparison.spread()[3] == 0
    assert "zyx" not in [d.snippet.text for d in comparison.disagreements()]
    assert unknown_share(comparison.scored["words"]) == pytest.approx(1 / 5)


def test_a_literal_unk_is_a_word_that_a_model_of_words_knows(models):
    comparison = compare({"words": models["words"]}, "the sea was <unk> and zyx calm")
    assert comparison.known.tolist() == [True, True, True, True, True, False, True]


def test_a_text_without_spaces_is_compared_by_character():
    chinese = "海是平静的小船出去寻找光从哪里来夜里没有人知道船会到哪里去" * 2
    models = {name: untrained("char", chinese) for name in ("one", "two")}
    comparison = compare(models, f"{chinese} 海\n平静")
    assert comparison.words.texts == [*chinese, "海", "平静"]
    assert "".join(comparison.pieces()) == f"{chinese} 海\n平静"
    assert {d.snippet.text for d in comparison.disagreements(3)} <= set(comparison.words.texts)
    for name, scored in comparison.scored.items():
        assert comparison.bits[name].sum() == pytest.approx(scored.bits.sum())


def test_a_remark_is_a_row_below_that_of_its_model(boat):
    comparison = compare({"boat": boat, "hebrew": untrained("char", "שלום\n")}, "the sea שלום")
    rows = re.findall("<tr.*?</tr>", scores_table(comparison))[1:]
    texts = [re.sub("<[^>]+>", " ", row).split() for row in rows]
    assert [words[0] for words in texts] == ["hebrew", "66.7%", "boat", "33.3%"]
    assert rows[1].startswith('<tr class="remark"><td colspan="5">')


def test_a_word_from_right_to_left_does_not_reorder_its_bits():
    comparison = compare({"hebrew": untrained("char", "שלום\n")}, "שלום שלום")
    assert re.search("“\u2068שלום\u2069” · hebrew: [0-9.]+ bits", word_details(comparison, 0))


def test_a_long_word_is_split_only_where_tokens_of_all_models_begin(models):
    word = "thesmallboatwentouttofindwherelightcomesfrom"
    comparison = compare({"boat": models["boat"], "pieces": models["pieces"]}, word)
    tokens = [s.text for s in models["pieces"].score(word)]
    assert comparison.words.texts == tokens and 1 < len(tokens) < len(word)
    assert compare(models, f"the sea {word}").words.texts == ["the", "sea", word]


def test_a_model_that_cannot_score_the_text_is_reported_and_the_others_are_compared(boat):
    comparison = compare({"boat": boat, "chinese": untrained("char", "海是平静的小船")})
    assert list(comparison.scored) == ["boat"] and "knows none" in str(comparison.errors["chinese"])
    assert comparison.disagreements() == []


def test_each_model_is_reported_as_soon_as_it_has_scored(models):
    steps = [list(comparison.scored) for comparison in compare_scores(models, TEXT)]
    assert steps == [["boat"], ["boat", "pieces"], ["boat", "pieces", "words"]]


@pytest.mark.parametrize("text", [" \n ", "a", "a\r\nb", "\ud800 x", "\x1b␛ y", "e\u0301 \u3000x\u2028z"])
def test_unusual_texts_are_compared(models, text):
    comparison = compare({name: models[name] for name in ("boat", "pieces")}, text)
    whole = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    if comparison.words.texts:
        assert "".join(comparison.pieces()).replace("\x1b", "␛") == whole.replace("\x1b", "␛")
        assert len(comparison.pieces()) == len(comparison.words.texts)
    assert len(comparison.disagreements()) <= len(comparison.words.texts)


def test_an_empty_text_is_an_error(boat):
    with pytest.raises(UserError, match="empty"):
        compare({"boat": boat}, "")
