"""Metrics of a text and their confidence intervals."""

import math

import numpy as np
import pytest

from lm.evaluation.metrics import compute_metrics, perplexity, proportion
from lm.evaluation.resampling import parts_of
from lm.tokenization.documents import SEPARATOR


def test_values_exclude_separators():
    """Two documents of three tokens each with an <eos> between them; 'é' has two bytes."""
    text = "aéb".encode() + SEPARATOR + b"cde"
    starts = np.array([0, 1, 3, 4, 5, 6, 7])
    losses = np.array([1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 2.0])
    found = compute_metrics(losses, starts, parts_of(text, starts))
    assert found.loss.value == pytest.approx(2)
    assert found.perplexity.value == pytest.approx(math.exp(2))
    assert found.bits_per_character.value == pytest.approx(14 / 6 / math.log(2))
    assert found.bits_per_byte.value == pytest.approx(14 / 7 / math.log(2))
    assert found.loss.interval is None  # too short


def test_the_interval_contains_the_mean_95_percent_of_the_time():
    """For autocorrelated losses with mean 2 (an AR(1) process), in 100 trials."""
    size, trials, generator = 8_000, 100, np.random.default_rng(0)
    losses = np.full((size, trials), 2.0)
    for i in range(1, size):
        losses[i] += 0.9 * (losses[i - 1] - 2) + 0.2 * generator.normal(size=trials)
    covered = naive = 0
    starts = np.arange(size)
    parts = parts_of(b"x" * size, starts)
    for one in losses.T:
        low, high = compute_metrics(one, starts, parts).loss.interval
        covered += low <= 2 <= high
        naive += abs(one.mean() - 2) <= 1.96 * one.std() / math.sqrt(size)
    assert 88 <= covered <= 99
    assert naive < 60  # assuming independent losses


def test_intervals_of_all_units_are_consistent():
    losses = np.random.default_rng(1).exponential(1.5, 30_000)
    starts = 2 * np.arange(30_000)
    found = compute_metrics(losses, starts, parts_of(b"ab" * 30_000, starts))
    low, high = found.loss.interval
    assert low < found.loss.value < high
    assert found.perplexity.interval == pytest.approx((math.exp(low), math.exp(high)))
    assert found.bits_per_character.interval == pytest.approx(np.array([low, high]) / 2 / math.log(2))


@pytest.mark.parametrize(("successes", "trials"), [(1, 9), (50, 60), (997, 1000), (0, 10), (10, 10)])
def test_the_interval_of_a_share_ends_where_the_score_test_rejects_it(successes, trials):
    found = proportion(successes, trials)
    assert found.value == successes / trials
    low, high = found.interval
    assert 0 <= low <= found.value <= high <= 1
    for end in (low, high):  # |share - end| is 1.96 standard errors at that end, or the end is trivial
        error = 1.959964 * math.sqrt(end * (1 - end) / trials)
        assert abs(found.value - end) == pytest.approx(error, rel=1e-5, abs=1e-9)


def test_the_interval_of_a_share_contains_it_95_percent_of_the_time():
    for share in (0.5, 0.95):
        drawn = np.random.default_rng(0).binomial(200, share, 2000)
        intervals = [proportion(int(count), 200).interval for count in drawn]
        assert 0.93 < np.mean([low <= share <= high for low, high in intervals]) < 0.97


def test_the_perplexity_of_a_ruined_model_is_finite():
    assert perplexity(math.log(5)) == pytest.approx(5)
    assert math.isfinite(perplexity(1e6))
