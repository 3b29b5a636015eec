"""Similar spans, compared with a search by the definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from lm.errors import UserError
from lm.insight.similar import similar_spans
from lm.insight.trace import trace_text
from tests.conftest import some_text
from tests.insight.networks import SHAPES, make


def cosines_by_definition(trace, tokens, layers):
    """The cosine between the states after `tokens` and after each span of as many, by its first token."""
    states = np.hstack([trace.values(layer, "h") for layer in layers])
    states = states - states.mean(axis=0)
    last = 0 if trace.model.backward else len(tokens) - 1
    query = states[tokens[last]]
    ends = states[last : len(states) - (len(tokens) - 1 - last)]
    return ends @ query / (np.linalg.norm(ends, axis=1) * np.linalg.norm(query))


@given(shape=SHAPES, kind=st.sampled_from(["char", "bpe", "word"]), seed=st.integers(0, 9), data=st.data())
@settings(deadline=None, max_examples=40)
def test_the_most_similar_spans_that_do_not_overlap_are_found(shape, kind, seed, data):
    model = make(kind, data.draw(st.sampled_from(["rnn", "gru", "lstm"])), seed, **shape)
    trace = trace_text(model, some_text(150, seed))
    start = data.draw(st.integers(0, 100))
    end = data.draw(st.integers(start, 110))
    layers = data.draw(st.sampled_from([None, [0]]))
    span = trace.text[start : max(end, start + 1)]
    assume(span == span.strip())  # whitespace belongs to no word
    tokens = np.flatnonzero((trace.starts < max(end, start + 1)) & (trace.ends > start))
    cosines = cosines_by_definition(trace, tokens, layers or range(trace.layers))
    distance = max(len(tokens), 8)
    free = np.abs(np.arange(len(cosines)) - tokens[0]) >= distance
    assume(free.any())
    found = similar_spans(trace, start, end, layers=layers, count=4)
    for one in found:  # each is the best of those that are left; rounding decides between equal ones
        first = list(trace.starts).index(one.snippet.start)
        assert free[first]
        assert one.similarity == pytest.approx(cosines[first], abs=1e-6)
        assert one.similarity == pytest.approx(cosines[free].max(), abs=1e-6)
        free &= np.abs(np.arange(len(cosines)) - first) >= distance
    assert len(found) == 4 or not free.any()
    spans = sorted([(one.snippet.start, one.snippet.end) for one in found])
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(end <= a or b <= start for a, b in spans)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_repetitions_of_a_word_are_found_with_their_context(direction):
    text = "the sea was calm. a boat lay there. " * 6
    trace = trace_text(make(hidden_size=16, layers=2, direction=direction), text)
    start = 36 * 2 + text.index("calm")
    found = similar_spans(trace, start, start + 4, count=5)
    assert [one.snippet.text for one in found[:3]] == ["calm"] * 3
    assert found[0].similarity > 0.99
    for one in found:
        assert text[one.snippet.start : one.snippet.end] == one.snippet.text
        assert (one.snippet.before + one.snippet.text + one.snippet.after) in text
    assert len(similar_spans(trace, start, start, count=1)[0].snippet.text) == 1


def test_spans_that_cannot_be_compared_raise_a_user_error():
    trace = trace_text(make(), "the sea")
    for span, message in (
        ((0, 8), "no span from 0 to 8"),
        ((3, 2), "no span"),
        ((-1, 2), "no span"),
        ((7, 7), "no span from 7 to 7"),  # there is no character after it
        ((0, "1"), "end must be a whole number, got '1'"),
    ):
        with pytest.raises(UserError, match=message):
            similar_spans(trace, *span)
    with pytest.raises(UserError, match="no other span"):
        similar_spans(trace, 0, 7)
    with pytest.raises(UserError, match="count must be at least 1, got 0"):
        similar_spans(trace, 0, 1, count=0)
    with pytest.raises(UserError, match="layer must be between 0 and 1, got 2"):
        similar_spans(trace, 0, 1, layers=[2])
    with pytest.raises(UserError, match="at least one layer"):
        similar_spans(trace, 0, 1, layers=[])
    with pytest.raises(UserError, match="layer must be between 0 and 1, got 2"):
        similar_spans(trace, 0, 1, layers=np.array([0, 2]))
