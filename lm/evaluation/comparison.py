"""A paired comparison of two models on the same text, whatever their tokenizers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from lm.evaluation.metrics import Estimate, ratio
from lm.evaluation.resampling import Parts, resample

_FLIPS = 9999  # random sign flips of a permutation test; with the observed signs, 10,000
_CHUNK = 500  # sign flips at a time
_ROUNDING = 1e-9  # relative: sums of the same numbers in another order


@dataclass(frozen=True)
class Comparison:
    """How a model differs from another one: negative differences mean that it predicts the text better."""

    bits_per_character: Estimate
    bits_per_byte: Estimate
    p: float | None  # of a permutation test; None for texts too short for one
    parts: Parts = field(repr=False)  # of the text, that were resampled and whose signs were flipped


def compare_losses(parts: Parts, losses: np.ndarray, other: np.ndarray) -> Comparison:
    """Compare two models by their total `losses` and `other` losses (parts,) in nats of each of the `parts`.

    The interval contains 95% of the differences of texts resampled from the parts: both models are compared
    on the same parts, so it is narrower than the intervals of the two models suggest. `p` is the share of
    random signs of the parts' differences with which their sum is at least as far from zero: if neither model
    were better, every sign would be as likely as its opposite (Fisher 1935, The Design of Experiments). It is
    computed from random flips and the observed signs, so it is at least 1/10,000 (Phipson and Smyth 2010,
    Statistical Applications in Genetics and Molecular Biology 9).
    """
    bits = (losses - other) / math.log(2)
    sums = np.column_stack([bits, parts.sizes])  # for each part: bits, characters, bytes
    drawn = resample(sums) if parts.enough else None
    p = _sign_flip_test(bits) if parts.enough else None
    return Comparison(ratio(sums, drawn, 1), ratio(sums, drawn, 2), p, parts)


def _sign_flip_test(differences: np.ndarray) -> float:
    """The two-sided p-value of the sum of `differences` (parts,), from random sign flips."""
    random, observed = np.random.default_rng(0), abs(differences.sum())
    observed -= _ROUNDING * np.abs(differences).sum()
    extreme = 1
    for begin in range(0, _FLIPS, _CHUNK):
        signs = random.integers(0, 2, (min(_CHUNK, _FLIPS - begin), len(differences))) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return extreme / (_FLIPS + 1)
