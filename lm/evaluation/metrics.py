"""The metrics of a scored text, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lm.evaluation.resampling import Parts, interval_of, resample, size_of
from lm.tokenization.documents import SEPARATOR

_MAX_NATS = 700.0  # e to the power of this is a finite float


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% confidence interval, which is None for texts too short to estimate it."""

    value: float
    interval: tuple[float, float] | None

    def __format__(self, form: str) -> str:
        """With the format ".4f": '1.5501 (1.5382 to 1.5620)', or without an interval '1.5501'."""
        interval = " to ".join(format(end, form) for end in self.interval or ())
        return format(self.value, form) + (f" ({interval})" if interval else "")


@dataclass(frozen=True)
class Metrics:
    """How well a text was predicted."""

    loss: Estimate  # nats per token
    perplexity: Estimate
    bits_per_character: Estimate
    bits_per_byte: Estimate


def compute_metrics(
    losses: np.ndarray, starts: np.ndarray, parts: Parts, counted: np.ndarray | None = None
) -> Metrics:
    """The metrics of a text cut into `parts`: of its tokens with `losses` (tokens,) in nats that start at the
    byte offsets `starts` (tokens,). If only some are `counted` (tokens,), the other tokens, their characters
    and bytes are left out.

    Each interval contains the values of 95% of the texts resampled from the parts. It estimates how far the
    value would move on another text of the same kind and length, not with another training run.
    """
    sums = np.column_stack(  # for each part: nats, tokens, characters, bytes
        [parts.sums(starts, losses), np.diff(parts.borders(starts)), parts.sizes]
    ).astype(float)
    if counted is not None:
        ends = np.append(starts[1:], len(parts.text))
        borders = parts.borders(starts)
        for token in np.flatnonzero(~counted).tolist():
            part = np.searchsorted(borders, token, side="right") - 1
            replaced, _, _ = parts.text[starts[token] : ends[token]].partition(SEPARATOR)
            sums[part] -= (losses[token], 1, *size_of(replaced))
    drawn = resample(sums) if parts.enough else None

    loss = ratio(sums, drawn, 1)
    interval = loss.interval and (perplexity(loss.interval[0]), perplexity(loss.interval[1]))
    return Metrics(
        loss=loss,
        perplexity=Estimate(perplexity(loss.value), interval),
        bits_per_character=ratio(sums, drawn, 2, math.log(2)),
        bits_per_byte=ratio(sums, drawn, 3, math.log(2)),
    )


def ratio(sums: np.ndarray, drawn: np.ndarray | None, unit: int, scale: float = 1.0) -> Estimate:
    """The total of the first column of `sums` (parts, k) divided by that of the column `unit` and by `scale`.
    The interval is that of the totals `drawn` (resamples, k), if there are any."""
    value = float(sums[:, 0].sum() / max(sums[:, unit].sum(), 1) / scale)
    if drawn is None:
        return Estimate(value, None)
    return Estimate(value, interval_of(drawn[:, 0] / np.maximum(drawn[:, unit], 1) / scale))


def perplexity(loss: float) -> float:
    """The perplexity of a loss in nats per token, limited to a finite float."""
    return math.exp(min(loss, _MAX_NATS))


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
