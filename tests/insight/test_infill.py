"""Infilling: what fills the gap keeps to the constraints, and the warnings about text that nobody knows."""

import numpy as np
import pytest

from lm.errors import UserError
from lm.insight.infill import infill
from tests.conftest import called
from tests.insight.networks import make


def fill(left, right, kind="char", **settings):
    models = make(kind), make(kind, direction="backward")
    settings = {"max_new_tokens": 8, "temperature": 1.5, "candidates": 8, **settings}
    return [gap.text for gap in infill(*models, left, right, **settings)]


def scored(model, text):
    """The scores of a text with the characters that `tokenizers` reports for them."""
    spans = model.tokenizer.backend.encode(text, add_special_tokens=False).offsets
    return zip(model.score(text), spans, strict=True)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_the_gap_is_filled_with_a_whole_choice(kind):
    choices = ["sea was calm", "the boat"]
    assert set(fill("the ", " was", kind, choices=choices, max_new_tokens=20)) <= set(choices)


def test_no_banned_string_is_in_the_gap_or_reaches_into_it():
    left, right = "the ", " sea"
    free = sorted(fill(left, right), key=len)
    for banned in (left[-2:] + free[-1][:1], free[-1][-1:] + right[:2], free[-1][2:4]):
        assert any(banned in left + text + right for text in free)
        texts = fill(left, right, ban=[banned])
        assert texts and not any(banned in left + text + right for text in texts)


def test_a_banned_string_on_one_side_of_the_gap_does_no_harm():
    assert fill("the the", "the", ban="the")


def test_a_gap_that_only_banned_strings_fill_is_an_error():
    with pytest.raises(
        UserError, match=r"^every text for the gap has a banned string: ban fewer strings, or "
    ):
        fill("the ", "sea", choices="was", ban="e wass", max_new_tokens=20)


@pytest.mark.parametrize(("left", "right"), [("the ", " sea"), ("the", "sea"), ("the ", "sea"), ("", "sea")])
def test_words_have_one_space_between_them(left, right):
    texts = fill(left, right, "word", choices=["was calm.", "the sea"])
    before, after = " " * (left == "the"), " " * (right == "sea")
    assert set(texts) <= {f"{before}{choice}{after}" for choice in ("was calm.", "the sea")}
    for text in fill(left, right, "word"):
        assert "  " not in left + text + right and text not in texts


def test_unknown_characters_on_both_sides_of_the_gap_are_named(tmp_path):
    for name, direction in (("a", "forward"), ("b", "backward")):
        make("char", direction=direction).save(tmp_path / name)
    gap = ["--infill", "theß|sea月", "--length", 3, "--seed", 1]
    result = called("generate", tmp_path / "a", "--backward-model", tmp_path / "b", *gap)
    assert result.returncode == 0
    assert result.stderr.startswith("warning: the model does not know 'ß', '月'; replaced by <unk>.\n")


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram", "word"])
def test_the_score_has_every_token_with_a_part_of_the_gap(kind):
    """Also one that crosses its border, such as "Ġsea" in "the|at |sea"."""
    forward, backward = make(kind), make(kind, direction="backward")
    for left, right in (("the bo", "t sea"), ("the", "sea"), ("", "lm."), ("the boat ", "")):
        gaps = infill(forward, backward, left, right, choices=["was", "at "], max_new_tokens=20, candidates=2)
        for gap in gaps:
            whole, end = left + gap.text + right, len(left + gap.text)
            after = [s.logprob for s, (_, stop) in scored(forward, whole) if stop > len(left)]
            before = [s.logprob for s, (start, _) in scored(backward, whole) if start < end]
            assert gap.score == pytest.approx(np.mean(after + before))
