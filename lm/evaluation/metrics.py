"""The metrics of a scored text, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lm.tokenization.documents import SEPARATOR, count_characters

BLOCKS = 100  # that a text is cut into at most
_MIN_BLOCKS = 10  # for an interval
_MIN_BLOCK_SIZE = 100  # tokens
_RESAMPLES = 4000
_MAX_NATS = 700.0  # e to the power of this is a finite float


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% confidence interval, which is None for texts too short to estimate it."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Metrics:
    """How well a text was predicted."""

    loss: Estimate  # nats per token
    perplexity: Estimate
    bits_per_character: Estimate
    bits_per_byte: Estimate


def compute_metrics(
    losses: np.ndarray, starts: np.ndarray, text: bytes, counted: np.ndarray | None = None
) -> Metrics:
    """The metrics of tokens with `losses` (tokens,) in nats that start at the byte offsets `starts` (tokens,)
    of `text`. If only some are `counted` (tokens,), the other tokens, their characters and bytes are left
    out.

    Intervals come from a block bootstrap (Künsch 1989, Annals of Statistics 17; non-overlapping blocks:
    Carlstein 1986, ibid. 14), because losses of neighboring tokens are correlated: the text is cut into a
    hundred blocks, and 95% of the texts resampled from them fall into the interval. It estimates how far the
    value would move on another text of the same kind and length, not with another training run.
    """
    count = max(1, min(BLOCKS, len(losses) // _MIN_BLOCK_SIZE))
    borders = np.arange(count + 1) * len(losses) // count
    offsets = [*starts[borders[:-1]].tolist(), len(text)]
    offsets[0] = 0
    sums = np.zeros((count, 4))  # for each block: nats, tokens, characters, bytes
    sums[:, 0] = np.add.reduceat(losses, borders[:-1])
    sums[:, 1] = np.diff(borders)
    for row, begin, end in zip(sums, offsets, offsets[1:], strict=False):
        row[2:] = _size(text[begin:end])
    if counted is not None:
        ends = np.append(starts[1:], len(text))
        for token in np.flatnonzero(~counted).tolist():
            block = np.searchsorted(borders, token, side="right") - 1
            sums[block] -= (losses[token], 1, *_size(text[starts[token] : ends[token]]))
    drawn = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    resampled = sums[drawn].sum(axis=1) if count >= _MIN_BLOCKS else None

    def estimate(unit: int, scale: float = 1.0) -> Estimate:
        nats, units = sums[:, 0].sum(), max(sums[:, unit].sum(), 1)
        if resampled is None:
            return Estimate(float(nats / units / scale), None)
        ratios = resampled[:, 0] / np.maximum(resampled[:, unit], 1) / scale
        low, high = np.quantile(ratios, [0.025, 0.975])
        return Estimate(float(nats / units / scale), (float(low), float(high)))

    def exp(nats: float) -> float:
        return math.exp(min(nats, _MAX_NATS))

    loss = estimate(1)
    interval = loss.interval and (exp(loss.interval[0]), exp(loss.interval[1]))
    return Metrics(
        loss=loss,
        perplexity=Estimate(exp(loss.value), interval),
        bits_per_character=estimate(2, math.log(2)),
        bits_per_byte=estimate(3, math.log(2)),
    )


def proportion(successes: int, trials: int) -> Estimate:
    """The share of successes, and its 95% score interval (Wilson 1927, Journal of the American Statistical
    Association 22), which holds for few trials and for shares near 0 and 1 as well."""
    z = NormalDist().inv_cdf(0.975)
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    low = (middle - half) / scale if successes else 0.0
    high = (middle + half) / scale if successes < trials else 1.0
    return Estimate(share, (low, high))


def _size(text: bytes) -> tuple[int, int]:
    """The number of characters and bytes, without separators."""
    return count_characters(text), len(text) - text.count(SEPARATOR)
