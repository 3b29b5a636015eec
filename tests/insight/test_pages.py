"""The trace of a page is that part of the trace of the whole text."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.insight.pages import PagedText
from lm.insight.trace import trace_text
from lm.insight.walkthrough import walk_through
from lm.language_model import LanguageModel
from lm.model.cells import CELLS
from lm.model.network import RecurrentLM
from tests.insight.networks import SAMPLE, SHAPES, make
from tests.tokenization.test_positions import lowercase_wordpiece

TEXT = SAMPLE.replace("\x85", " ")[:200]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@given(shape=SHAPES, kind=st.sampled_from(["char", "byte", "word"]), size=st.integers(1, 60), data=st.data())
@settings(deadline=None, max_examples=30)
def test_pages_are_parts_of_the_whole(cell, shape, kind, size, data):
    model = make(kind, cell, **shape)
    whole, paged = trace_text(model, TEXT), PagedText(model, TEXT, size)
    page = data.draw(st.integers(0, paged.pages - 1))
    first, end = paged.borders[page : page + 2]
    trace = paged.trace(page)
    assert trace.text == whole.text[slice(*paged.characters(page))]
    assert "".join(paged.text[slice(*paged.characters(n))] for n in range(paged.pages)) == whole.text
    assert (trace.tokens == whole.tokens[first:end]).all()
    layer = trace.layers - 1
    for name in trace.names:
        assert trace.values(layer, name) == pytest.approx(whole.values(layer, name)[first:end], abs=1e-9)
    for token in (0, len(trace.tokens) - 1):
        mine, theirs = (walk_through(t, n, layer, 0) for t, n in ((trace, token), (whole, first + token)))
        assert mine.h == pytest.approx(theirs.h, abs=1e-9) and mine.read == theirs.read
        ours, other = (dict(t.predictions(n, 3)) for t, n in ((trace, token), (whole, first + token)))
        assert ours == pytest.approx(other, abs=1e-9)


def test_pages_end_with_a_line_if_one_ends_late_enough():
    paged = PagedText(make("char"), "abc\n".replace("abc", "the sea") * 100, 100)
    assert paged.pages == 9 and all(np.diff(paged.borders)[:-1] == 96)
    assert PagedText(make("char"), "the sea" * 30, 100).borders == [0, 100, 200, 210]
    assert PagedText(make("char"), "the sea" * 30 + "\nthe sea", 100).borders == [0, 100, 200, 218]


def test_pages_of_a_tokenizer_that_skips_line_breaks_end_with_a_line():
    tokenizer = lowercase_wordpiece()
    network = RecurrentLM(ModelConfig(hidden_size=4), tokenizer.vocab_size).eval()
    paged = PagedText(LanguageModel(network, tokenizer), "the hat\n" * 100, 50)  # four tokens a line
    assert paged.pages == 9 and all(np.diff(paged.borders)[:-1] == 48)


def test_a_page_that_does_not_exist_is_an_error():
    paged = PagedText(make("char"), "the sea", 100)
    for page in (-1, 1):
        with pytest.raises(UserError, match="page must be between 1 and 1"):
            paged.trace(page)
    with pytest.raises(UserError, match="page_tokens must be at least 1, got 0"):
        PagedText(make("char"), "the sea", 0)
