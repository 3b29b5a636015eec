"""The figures of a text, and how sure they are."""

import math

import numpy as np
import pytest

from lm.evaluation.metrics import figures
from lm.tokenization.documents import SEPARATOR


def test_values():
    """Two documents of three tokens each and the <eos> between them: 'é' has two bytes."""
    text = "aéb".encode() + SEPARATOR + b"cde"
    found = figures(np.array([1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 2.0]), np.array([0, 1, 3, 4, 5, 6, 7]), text)
    assert found.loss.value == pytest.approx(2)
    assert found.perplexity.value == pytest.approx(math.exp(2))
    assert found.bits_per_character.value == pytest.approx(14 / 6 / math.log(2))
    assert found.bits_per_byte.value == pytest.approx(14 / 7 / math.log(2))
    assert found.loss.interval is None  # too short to tell


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    """On losses whose neighbours are alike, an autoregression with the mean 2, a hundred times."""
    size, trials, generator = 8_000, 100, np.random.default_rng(0)
    losses = np.full((size, trials), 2.0)
    for i in range(1, size):
        losses[i] += 0.9 * (losses[i - 1] - 2) + 0.2 * generator.normal(size=trials)
    held = naive = 0
    for one in losses.T:
        low, high = figures(one, np.arange(size), b"x" * size).loss.interval
        held += low <= 2 <= high
        naive += abs(one.mean() - 2) <= 1.96 * one.std() / math.sqrt(size)
    assert 88 <= held <= 99
    assert naive < 60  # as if the tokens had nothing to do with each other


def test_intervals_of_all_units_belong_together():
    losses = np.random.default_rng(1).exponential(1.5, 30_000)
    found = figures(losses, 2 * np.arange(30_000), b"ab" * 30_000)
    low, high = found.loss.interval
    assert low < found.loss.value < high
    assert found.perplexity.interval == pytest.approx((math.exp(low), math.exp(high)))
    assert found.bits_per_character.interval == pytest.approx(np.array([low, high]) / 2 / math.log(2))
