"""Find the spans of a text after which the network's state is most similar to that after a given span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.config.settings import whole_number
from lm.errors import UserError
from lm.insight.spans import Snippet, snippet
from lm.insight.trace import Trace

_MIN_DISTANCE = 8  # tokens between two results: states of neighboring tokens are almost the same
_BLOCK = 8192  # tokens compared at a time


@dataclass(frozen=True)
class SimilarSpan:
    """A span with as many tokens as the given one, and how similar the state after it is."""

    similarity: float  # cosine, at most 1
    snippet: Snippet


def similar_spans(
    trace: Trace, start: int, end: int, *, layers: Sequence[int] | None = None, count: int = 10
) -> list[SimilarSpan]:
    """The `count` spans most similar to text[start:end], best first. An empty span means its first character.

    The similarity is the cosine between the hidden states of `layers` (None: all) after the last token of
    each span, minus their mean over the text. The results overlap neither each other nor the given span.
    Raises UserError for a span or layer out of range, or if the text has no other span to compare.
    """
    layers = range(trace.layers) if layers is None else layers
    if not len(layers):
        raise UserError("choose at least one layer.")
    for layer in layers:
        trace.check(layer)
    start, end = whole_number("start", start), whole_number("end", end)
    count = whole_number("count", count, 1)
    if not (0 <= start <= end <= len(trace.text) and start < len(trace.text)):
        raise UserError(f"the text has {len(trace.text)} characters; there is no span from {start} to {end}.")
    first = trace.token_at(start)
    last = max(first, trace.token_at(max(end - 1, start)))
    width, size = last - first + 1, len(trace.tokens)
    distance = max(width, _MIN_DISTANCE)
    read_last = first if trace.model.backward else last
    similarity = _cosines([trace.values(layer, "h") for layer in layers], read_last)
    # Index spans by their first token, whichever of their tokens is read last.
    similarity = similarity[: size - width + 1] if trace.model.backward else similarity[width - 1 :]
    similarity[max(first - distance + 1, 0) : first + distance] = -np.inf
    spans = []
    for _ in range(count):
        best = int(np.argmax(similarity))
        if similarity[best] == -np.inf:
            break
        found = snippet(trace.text, int(trace.starts[best]), int(trace.ends[best + width - 1]))
        spans.append(SimilarSpan(float(similarity[best]), found))
        similarity[max(best - distance + 1, 0) : best + distance] = -np.inf
    if not spans:
        raise UserError("the text has no other span to compare with: choose a longer text or a shorter span.")
    return spans


def _cosines(states: Sequence[np.ndarray], token: int) -> np.ndarray:
    """The states (tokens, units) of each layer -> the cosine (tokens,) between each token and `token`."""
    means = [state.mean(axis=0, dtype=np.float64).astype(state.dtype) for state in states]
    query = np.concatenate([state[token] - mean for state, mean in zip(states, means, strict=True)])
    cosines = np.empty(len(states[0]))
    for begin in range(0, len(cosines), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        centered = np.hstack([state[block] - mean for state, mean in zip(states, means, strict=True)])
        norms = np.linalg.norm(centered, axis=1) * np.linalg.norm(query)
        cosines[block] = np.divide(centered @ query, norms, out=np.zeros(len(norms)), where=norms > 0)
    return np.clip(cosines, -1, 1)
