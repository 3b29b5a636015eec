"""Find the hidden units that track a property of the text.

A binary property is scored by the AUC: the probability that a unit is higher at a random token with the
property than at a random token without it. A quantity is scored by Spearman's rank correlation. Both use only
the ranks of a unit's values, so rare properties count as much as common ones, and cell states that count to
hundreds as much as saturated ones. The correlation of the values themselves does neither.

Among a thousand units, some fit any part of a text by chance. Therefore units are selected on one part of the
text and scored on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from lm.errors import UserError
from lm.insight.trace import Trace
from lm.model.cells import CELLS

CLEAR_SCORE = {"auc": 0.9, "spearman": 0.75}  # on held-out text: a unit with it tracks the property clearly
_MIN_FINALISTS = 20  # units selected on one part of the text to be scored on the other
_MARGIN = 2  # this many times as many are chosen by their approximate scores
_BINS = 1024  # of a unit's values, for approximate scores
_MAX_TOKENS = 4000  # with the property, and as many without it, compared in each part of the text
_BLOCK = 1 << 19  # values ranked at a time


@dataclass(frozen=True)
class FoundUnit:
    """A unit and how well it tracks the property."""

    layer: int
    unit: int
    name: str  # h or c
    score: float  # AUC (0.5 by chance) or rank correlation (0 by chance) on the held-out part of the text
    selection_score: float  # the same on the part that the unit was selected on
    direction: int  # 1: high where the property holds, or is large; -1: low
    threshold: float | None  # separates tokens with the property from those without it; None for a quantity


@dataclass(frozen=True)
class FoundUnits:
    """The best units on held-out text, best first."""

    measure: str  # auc or spearman
    candidates: int  # number of units compared
    units: list[FoundUnit]


def find_units(trace: Trace, property_: np.ndarray, count: int = 20) -> FoundUnits:
    """The `count` units of all layers that best track `property_` (characters,): bool, or float for a
    quantity, as in lm/insight/properties.py. At each token, its value is that of the last character read.

    Raises UserError if the property varies too little to distinguish a unit that tracks it from chance.
    """
    return _find(trace, [_Target.of(trace, property_)], count)[0]


def rank_properties(
    trace: Trace, properties: Mapping[str, np.ndarray], count: int = 5
) -> dict[str, FoundUnits]:
    """What `find_units` returns for each of the named `properties`, in one pass over the units.

    >>> rank_properties(trace, {name: of(trace.text) for name, of in PROPERTIES.items()})

    Properties that vary too little in the text are left out.
    """
    targets = {}
    for name, property_ in properties.items():
        with suppress(UserError):
            targets[name] = _Target.of(trace, property_)
    return dict(zip(targets, _find(trace, list(targets.values()), count), strict=True))


@dataclass(frozen=True)
class _Target:
    """A property at each token, and the tokens to select units on and to score them on."""

    values: np.ndarray  # (tokens,) bool or float
    selection: np.ndarray
    held_out: np.ndarray

    @classmethod
    def of(cls, trace: Trace, property_: np.ndarray) -> _Target:
        values = property_[trace.last_read]
        return cls(values, *(_split_binary(values) if values.dtype == bool else _split_quantity(values)))

    @property
    def binary(self) -> bool:
        return self.values.dtype == bool

    def weights(self) -> np.ndarray:
        """(tokens,): the sum of a unit's ranks with these weights is proportional to its score."""
        weights = np.zeros(len(self.values), np.float32)
        chosen = self.values[self.selection]
        if self.binary:
            weights[self.selection] = np.where(
                chosen, 1 / np.count_nonzero(chosen), -1 / np.count_nonzero(~chosen)
            )
        else:
            order, ranks = _ranks(chosen[None])
            weights[self.selection[order[0]]] = ranks[0] / np.linalg.norm(ranks[0])
        return weights


def _find(trace: Trace, targets: Sequence[_Target], count: int) -> list[FoundUnits]:
    """The best units for each target. Their approximate scores are one matrix product; those that may be
    among the best are then scored exactly."""
    states = [(layer, name) for layer in range(trace.layers) for name in CELLS[trace.cell].states]
    approximate = _approximate_scores(trace, states, targets)
    return [
        _score_exactly(trace, states, target, scores, count)
        for target, scores in zip(targets, approximate, strict=True)
    ]


def _approximate_scores(
    trace: Trace, states: Sequence[tuple[int, str]], targets: Sequence[_Target]
) -> np.ndarray:
    """(targets, states * units): for each target, numbers that order the units nearly as their scores do.

    The ranks are those of bins of values, the same for all targets.
    """
    if not targets:
        return np.empty((0, 0))
    weights = np.stack([target.weights() for target in targets])
    tokens = np.flatnonzero(weights.any(axis=0))
    binary = np.array([[target.binary] for target in targets])
    scores = []
    for layer, name in states:
        ranks = _binned_ranks(trace.values(layer, name), tokens)
        products, spread = weights[:, tokens] @ ranks.T, ranks.std(axis=1)
        # The AUC is a mean rank; a rank correlation is divided by the spread of the ranks.
        divisor = np.where(binary, np.float32(1), spread)
        scores.append(np.divide(products, divisor, out=np.zeros_like(products), where=spread > 0))
    return np.concatenate(scores, axis=1)


def _binned_ranks(values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """values (all tokens, units) -> (units, tokens): the mean rank of the bin of each of the `tokens` among
    evenly spaced tokens, from 0 to 1. There are `_BINS` bins of equal width between the 1st and the 99th
    percentile of a unit's values."""
    references = values[_evenly(np.arange(len(values)), 2 * _MAX_TOKENS)]
    low, high = np.quantile(references, (0.01, 0.99), axis=0).astype(values.dtype)
    scale = np.divide(_BINS, high - low, out=np.zeros_like(low), where=high > low)

    def bins_of(some: np.ndarray) -> np.ndarray:
        return np.clip((some - low) * scale, 0, _BINS - 1).astype(np.int32)

    units = np.arange(values.shape[1], dtype=np.int32) * _BINS
    counts = np.bincount((bins_of(references) + units).ravel(), minlength=_BINS * len(units))
    counts = counts.reshape(len(units), _BINS)
    ranks = ((np.cumsum(counts, axis=1) - counts / 2) / len(references)).astype(np.float32)
    return np.ascontiguousarray(ranks.ravel()[bins_of(values[tokens]) + units].T)


def _score_exactly(
    trace: Trace,
    states: Sequence[tuple[int, str]],
    target: _Target,
    approximate: np.ndarray,
    count: int,
) -> FoundUnits:
    """Score the units with the largest approximate scores exactly, and return the best on held-out text."""
    finalists = max(count, _MIN_FINALISTS)
    likely = np.argsort(-np.abs(approximate), kind="stable")[: _MARGIN * finalists]
    places = [(*states[state], unit) for state, unit in (divmod(i, trace.units) for i in likely.tolist())]
    values = np.stack([trace.values(layer, name, unit) for layer, name, unit in places])
    selected, held_out = target.values[target.selection], target.values[target.held_out]
    scores = rank_scores(np.ascontiguousarray(values[:, target.selection]), selected)
    best = np.argsort(-np.abs(scores), kind="stable")[:finalists]
    on_held_out = rank_scores(np.ascontiguousarray(values[best][:, target.held_out]), held_out)
    found = []
    for index, score in zip(best.tolist(), on_held_out.tolist(), strict=True):
        layer, name, unit = places[index]
        direction = 1 if scores[index] >= 0 else -1
        threshold = None
        if target.binary:
            threshold = direction * best_threshold(values[index, target.selection] * direction, selected)
        found.append(
            FoundUnit(
                layer=layer,
                unit=unit,
                name=name,
                score=_as_measure(direction * score, target.binary),
                selection_score=_as_measure(abs(scores[index]), target.binary),
                direction=direction,
                threshold=threshold,
            )
        )
    found.sort(key=lambda unit: -unit.score)
    return FoundUnits("auc" if target.binary else "spearman", approximate.size, found[:count])


def _split_binary(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens to select on and those to score on. The text is cut between two stretches with the property,
    because units hardly change within a stretch: it must not be in both parts."""
    if not values.any():
        raise UserError("nothing in this text has the property: choose a text in which it occurs.")
    if values.all():
        raise UserError("the whole text has the property: choose a text in which it comes and goes.")
    changes = np.diff(values.astype(np.int8), prepend=0, append=0)
    begins, ends = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
    middle = (len(begins) + 1) // 2
    if len(begins) > 1:
        cut = (ends[middle - 1] + begins[middle] + 1) // 2
        parts = values[:cut], values[cut:]
        if not any(part.all() for part in parts):
            selection, held_out = (
                np.sort(np.concatenate([_evenly(np.flatnonzero(part)), _evenly(np.flatnonzero(~part))]))
                for part in parts
            )
            return selection, cut + held_out
    raise UserError(
        "the property occurs in one place only, where some unit always fits by chance: choose a longer text"
        " in which it comes and goes."
    )


def _split_quantity(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of the text."""
    cut = (len(values) + 1) // 2
    if any(len(half) < 2 or np.all(half == half[0]) for half in (values[:cut], values[cut:])):
        raise UserError("the quantity is constant in half of this text: choose a text in which it varies.")
    return _evenly(np.arange(cut)), cut + _evenly(np.arange(len(values) - cut))


def _evenly(tokens: np.ndarray, most: int = _MAX_TOKENS) -> np.ndarray:
    """The tokens, or, if there are more than `most`, that many of them, evenly spaced."""
    if len(tokens) <= most:
        return tokens
    return tokens[np.linspace(0, len(tokens) - 1, most).astype(np.int64)]


def rank_scores(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """values (units, tokens), target (tokens,) -> (units,) from -1 to 1: 2 · AUC - 1 for a bool target, else
    Spearman's rank correlation.

    Both are a normalized sum of ranks times the target (Mann & Whitney 1947 for the AUC).
    """
    tokens = values.shape[1]
    if target.dtype == bool:
        weights, positive = target.astype(np.float64), np.count_nonzero(target)
        spread = np.full(len(values), positive * (tokens - positive) / 2)
    else:
        order, ranks = _ranks(target[None])
        weights = np.empty(tokens)
        weights[order[0]] = ranks[0]
        spread = None
    scores = np.empty(len(values))
    step = max(1, _BLOCK // tokens)
    for begin in range(0, len(values), step):
        order, ranks = _ranks(values[begin : begin + step])
        products = (ranks * weights[order]).sum(axis=1)
        if spread is None:
            norms = np.sqrt((ranks**2).sum(axis=1) * (weights**2).sum())
        else:
            norms = spread[begin : begin + step]
        scores[begin : begin + step] = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
    return scores


def _ranks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """values (units, tokens) -> the sorting order of each unit's values and, in that order, their ranks minus
    the mean rank. Equal values share their mean rank."""
    tokens = values.shape[1]
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    indices = np.arange(tokens)
    new = np.ones((len(values), tokens + 1), bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:-1])
    if new.all():  # no ties
        return order, np.broadcast_to(indices - (tokens - 1) / 2, values.shape)
    first = np.maximum.accumulate(np.where(new[:, :-1], indices, 0), axis=1)
    last = np.minimum.accumulate(np.where(new[:, :0:-1], indices[::-1], tokens), axis=1)[:, ::-1]
    return order, (first + last - (tokens - 1)) / 2


def best_threshold(values: np.ndarray, target: np.ndarray) -> float:
    """The threshold on values (tokens,) that maximizes the share of tokens with the property above it plus
    the share of tokens without it below (Youden 1950)."""
    order = np.argsort(values, kind="stable")
    values, target = values[order], target[order]
    below = np.cumsum(~target) / np.count_nonzero(~target) - np.cumsum(target) / np.count_nonzero(target)
    between = np.flatnonzero(values[1:] > values[:-1])
    if not len(between):
        return float(values[0])
    best = between[np.argmax(below[between])]
    return (float(values[best]) + float(values[best + 1])) / 2


def _as_measure(score: float, binary: bool) -> float:
    return float((1 + score) / 2 if binary else score)
