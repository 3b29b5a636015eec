"""Find units: which hidden units track a property of the text.

A property that is there or not is scored by the AUC: how often a unit is higher at a place that has the
property than at one that has it not. A quantity is scored by Spearman's rank correlation. Both see only
the order of a unit's values. So rare properties count like common ones, and a memory cell that counts to
hundreds like one that saturates; a correlation of the values themselves does neither.

Among a thousand units some fit any part of a text by chance. So units are chosen on one part of the text,
and their scores are those on the rest of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.errors import UserError
from lm.insight.trace import STATES, Trace

_FINALISTS = 20  # units at least that are chosen on one part of the text, to be scored on the rest
_MOST = 4000  # places of each kind that are compared in a part of the text
_BLOCK = 1 << 19  # numbers that are ranked at a time


@dataclass(frozen=True)
class FoundUnit:
    """A unit and how well it tracks the property."""

    layer: int
    unit: int
    name: str  # h or c
    score: float  # on the part of the text that the unit was not chosen by; that of chance is 0.5 or 0
    chosen_by: float  # the score on the part that it was chosen by
    direction: int  # 1: it is high where the property is, -1: low
    threshold: float | None  # between places with the property and others; None for a quantity


@dataclass(frozen=True)
class FoundUnits:
    """The best units, the best of the rest of the text first."""

    measure: str  # auc or spearman
    among: int  # that were compared
    units: list[FoundUnit]


def find_units(trace: Trace, property_: np.ndarray, count: int = 20) -> FoundUnits:
    """The `count` units of all layers that track a property best: `property_` (characters,) bool, or float
    for a quantity, as in lm/insight/properties.py. Of a token of several characters the one that was read
    last counts.

    Raises UserError if the property does not come and go often enough to tell a unit from chance.
    """
    there = property_[trace.last_read]
    binary = there.dtype == bool
    parts = _parts_of_places(there) if binary else _parts_of_quantities(there)
    (rows, target), (rest, rest_target) = ((part, there[part]) for part in parts)
    candidates = [(layer, name) for layer in range(trace.layers) for name in STATES[trace.cell]]
    scores = np.concatenate([_scores(_rows(trace, *c, rows), target) for c in candidates])
    best = np.argsort(-np.abs(scores), kind="stable")[: max(count, _FINALISTS)]
    found = []
    for number in best.tolist():
        which, unit = divmod(number, trace.units)
        layer, name = candidates[which]
        values = trace.values(layer, name, unit)
        direction = 1 if scores[number] >= 0 else -1
        held_out = direction * _scores(values[None, rest], rest_target)[0]
        threshold = _threshold(values[rows] * direction, target) if binary else None
        found.append(
            FoundUnit(
                layer, unit, name,
                score=_shown(held_out, binary),
                chosen_by=_shown(abs(scores[number]), binary),
                direction=direction,
                threshold=None if threshold is None else direction * threshold,
            )
        )  # fmt: skip
    found.sort(key=lambda unit: -unit.score)
    return FoundUnits("auc" if binary else "spearman", len(scores), found[:count])


def _parts_of_places(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens to choose by and tokens to score by. The text is cut between two stretches with the property,
    so that no stretch, in which the units hardly change, is in both parts."""
    if not there.any():
        raise UserError(
            "nothing in this text has the property, so no unit can track it: take a text that has it."
        )
    if there.all():
        raise UserError(
            "all of this text has the property, so no unit can track it: take one where it comes and goes."
        )
    changes = np.diff(there.astype(np.int8), prepend=0, append=0)
    begins, ends = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
    middle = (len(begins) + 1) // 2
    if len(begins) > 1:
        cut = (ends[middle - 1] + begins[middle] + 1) // 2
        parts = there[:cut], there[cut:]
        if not any(part.all() for part in parts):
            first, second = (
                np.sort(np.concatenate([_evenly(np.flatnonzero(part == wanted)) for wanted in (True, False)]))
                for part in parts
            )
            return first, cut + second
    raise UserError(
        "the property comes in one place only, where some unit always fits by chance: take a longer text,"
        " where it comes and goes."
    )


def _parts_of_quantities(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of a text."""
    cut = (len(there) + 1) // 2
    if any(len(part) < 2 or np.all(part == part[0]) for part in (there[:cut], there[cut:])):
        raise UserError(
            "the quantity is the same all over a half of this text, so no unit can track it: take a text"
            " where it changes."
        )
    return _evenly(np.arange(cut)), cut + _evenly(np.arange(len(there) - cut))


def _evenly(rows: np.ndarray) -> np.ndarray:
    """At most so many of some rows, spread evenly over them."""
    if len(rows) <= _MOST:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _MOST).astype(np.int64)]


def _rows(trace: Trace, layer: int, name: str, rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(trace.values(layer, name)[rows].T)


def _scores(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """values (units, rows), target (rows,) -> (units,) from -1 to 1: 2 AUC - 1, or Spearman's correlation.

    Both are the same sum, that of the ranks times the target (Mann & Whitney 1947 for the AUC).
    """
    rows = values.shape[1]
    if target.dtype == bool:
        weights, positive = target.astype(np.float64), np.count_nonzero(target)
        spread = np.full(len(values), positive * (rows - positive) / 2)
    else:
        order, ranks = _ranks(target[None])
        weights = np.empty(rows)
        weights[order[0]] = ranks[0]
        spread = None
    scores = np.empty(len(values))
    step = max(1, _BLOCK // rows)
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
    """values (units, rows) -> the order of each unit's rows, and in this order their ranks, less the mean
    rank; equal values share the mean of theirs."""
    rows = values.shape[1]
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    places = np.arange(rows)
    new = np.ones((len(values), rows + 1), bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:-1])
    if new.all():  # nothing is shared
        return order, np.broadcast_to(places - (rows - 1) / 2, values.shape)
    first = np.maximum.accumulate(np.where(new[:, :-1], places, 0), axis=1)
    last = np.minimum.accumulate(np.where(new[:, :0:-1], places[::-1], rows), axis=1)[:, ::-1]
    return order, (first + last - (rows - 1)) / 2


def _threshold(values: np.ndarray, target: np.ndarray) -> float:
    """Where to cut values (rows,) so that most with the property lie above and most without below, both
    shares counting alike (Youden 1950)."""
    order = np.argsort(values, kind="stable")
    values, target = values[order], target[order]
    below = np.cumsum(~target) / np.count_nonzero(~target) - np.cumsum(target) / np.count_nonzero(target)
    between = np.flatnonzero(values[1:] > values[:-1])
    if not len(between):
        return float(values[0])
    place = between[np.argmax(below[between])]
    return (float(values[place]) + float(values[place + 1])) / 2


def _shown(score: float, binary: bool) -> float:
    return float((1 + score) / 2 if binary else score)
