"""Places of a text at which the network's state is most like that after a chosen span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.errors import UserError
from lm.insight.places import Snippet, snippet
from lm.insight.trace import Trace

_APART = 8  # tokens between two places at least: neighbours have almost the same state
_BLOCK = 8192  # tokens that are compared at a time


@dataclass(frozen=True)
class SimilarPlace:
    """As many tokens as the span has, up to the one after which the state is alike."""

    similarity: float  # the cosine, at most 1
    place: Snippet


def similar_places(
    trace: Trace, start: int, end: int, *, layers: Sequence[int] | None = None, count: int = 10
) -> list[SimilarPlace]:
    """The places most like text[start:end], the most alike first; an empty span is its first character.

    Compared are the hidden states of `layers` (None: all) after the span's last token, less their mean over
    the text, by the angle between them. Places do not overlap each other nor the span. Raises UserError
    for a span or a layer that is not there, and for a text that has no other place.
    """
    layers = range(trace.layers) if layers is None else layers
    if not layers:
        raise UserError("no layer is chosen: name at least one.")
    for layer in layers:
        trace.check(layer)
    if not 0 <= start <= end <= len(trace.text):
        raise UserError(f"the text has {len(trace.text)} characters, and no span from {start} to {end}.")
    first = trace.token_at(start)
    last = max(first, trace.token_at(max(end - 1, start)))
    width, size = last - first + 1, len(trace.tokens)
    apart = max(width, _APART)
    similarity = _cosines([trace.values(layer, "h") for layer in layers], _state_of(trace, first, last))
    # A place is told by its first token, wherever in it the state is taken.
    similarity = similarity[: size - width + 1] if trace.model.backward else similarity[width - 1 :]
    similarity[max(first - apart + 1, 0) : first + apart] = -np.inf
    places = []
    for _ in range(count):
        best = int(np.argmax(similarity))
        if similarity[best] == -np.inf:
            break
        begin, behind = trace.starts[best], trace.ends[best + width - 1]
        places.append(SimilarPlace(float(similarity[best]), snippet(trace.text, int(begin), int(behind))))
        similarity[max(best - apart + 1, 0) : best + apart] = -np.inf
    if not places:
        raise UserError("the text has no other place to compare with: take a longer one or a shorter span.")
    return places


def _state_of(trace: Trace, first: int, last: int) -> int:
    """The token of a span that is read last."""
    return first if trace.model.backward else last


def _cosines(states: Sequence[np.ndarray], token: int) -> np.ndarray:
    """The states (tokens, units) of some layers -> the cosine (tokens,) of each token's to one's."""
    means = [state.mean(axis=0, dtype=np.float64).astype(state.dtype) for state in states]
    wanted = np.concatenate([state[token] - mean for state, mean in zip(states, means, strict=True)])
    cosines = np.empty(len(states[0]))
    for begin in range(0, len(cosines), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        centred = np.hstack([state[block] - mean for state, mean in zip(states, means, strict=True)])
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(wanted)
        cosines[block] = np.divide(centred @ wanted, norms, out=np.zeros(len(norms)), where=norms > 0)
    return np.clip(cosines, -1, 1)
