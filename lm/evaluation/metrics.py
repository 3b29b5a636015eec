"""The figures of a scored text, each with the interval in which it lies for texts of its kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lm.tokenization.documents import SEPARATOR, count_characters

BLOCKS = 100  # into which a text is cut
_SHORTEST = 100  # tokens in a block
_FEWEST = 10  # blocks
_RESAMPLED = 4000
_MOST = 700.0  # nats whose exponential is still a number


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval, which is None for a text too short to tell."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Figures:
    """How well a text was predicted."""

    loss: Estimate  # nats per token
    perplexity: Estimate
    bits_per_character: Estimate
    bits_per_byte: Estimate


def figures(losses: np.ndarray, starts: np.ndarray, text: bytes) -> Figures:
    """The figures of tokens that begin at the places `starts` (tokens,) of `text` and were predicted
    with `losses` (tokens,) nats.

    The losses of neighbouring tokens are alike, so the interval comes from long blocks: the text is
    cut into a hundred, as many of them are drawn at random again and again, and 95% of the figures
    of these texts lie in it (the block bootstrap: Künsch 1989, Annals of Statistics 17; with blocks
    that do not overlap, Carlstein 1986, ibid. 14). It tells how far the figure would move with
    another text of the same length and kind, not with another training.
    """
    count = max(1, min(BLOCKS, len(losses) // _SHORTEST))
    borders = np.arange(count + 1) * len(losses) // count
    places = [*starts[borders[:-1]].tolist(), len(text)]
    places[0] = 0
    sums = np.zeros((count, 4))  # for each block: nats, tokens, characters, bytes
    sums[:, 0] = np.add.reduceat(losses, borders[:-1])
    sums[:, 1] = np.diff(borders)
    for row, begin, end in zip(sums, places, places[1:], strict=False):
        part = text[begin:end]
        row[2:] = count_characters(part), len(part) - part.count(SEPARATOR)
    drawn = np.random.default_rng(0).integers(0, count, (_RESAMPLED, count))
    resampled = sums[drawn].sum(axis=1) if count >= _FEWEST else None

    def estimate(unit: int, scale: float = 1.0) -> Estimate:
        nats, units = sums[:, 0].sum(), max(sums[:, unit].sum(), 1)
        if resampled is None:
            return Estimate(float(nats / units / scale), None)
        ratios = resampled[:, 0] / np.maximum(resampled[:, unit], 1) / scale
        low, high = np.quantile(ratios, [0.025, 0.975])
        return Estimate(float(nats / units / scale), (float(low), float(high)))

    def exp(nats: float) -> float:
        return math.exp(min(nats, _MOST))

    loss = estimate(1)
    interval = loss.interval and (exp(loss.interval[0]), exp(loss.interval[1]))
    return Figures(
        loss=loss,
        perplexity=Estimate(exp(loss.value), interval),
        bits_per_character=estimate(2, math.log(2)),
        bits_per_byte=estimate(3, math.log(2)),
    )
