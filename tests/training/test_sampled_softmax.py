"""A sample of the token types is enough to learn from."""

import numpy as np
import pytest
import torch
import yaml

from lm.cli.train import main
from lm.training import sampled_softmax
from lm.training.sampled_softmax import TypeSampler
from tests.conftest import SMALL, metrics

# Types 0 to 39; the higher ones are more frequent, and the first ones do not occur at all.
TOKENS = np.repeat(np.arange(40, dtype=np.uint16), np.maximum(np.arange(40) - 3, 0))


def test_weighted_sums_over_samples_estimate_the_sum_over_all_types():
    sampler = TypeSampler(TOKENS, 40, 30, seed=3)
    exponentials = torch.randn(40, generator=torch.Generator().manual_seed(0)).exp()
    estimates = []
    for step in range(1000):
        types, log_weights = sampler.draw(step)
        estimates.append((log_weights.exp() * exponentials[types]).sum())
    estimates = torch.stack(estimates)
    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean() - exponentials.sum()) < 4 * error < 0.05 * exponentials.sum()


def test_a_sample_has_the_frequent_types_and_depends_on_the_step_and_the_seed_only():
    samples = [
        TypeSampler(TOKENS, 40, 13, seed).draw(step) for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    ]
    for types, log_weights in samples:
        assert types[:6].tolist() == [39, 38, 37, 36, 35, 34]
        assert log_weights[:6].tolist() == [0] * 6
        assert len(types) == len(log_weights) == 13 and types[6:].max() < 34
    first, again, *others = samples
    assert all(map(torch.equal, first, again))
    assert not any(torch.equal(first.types, other.types) for other in others)


def test_frequencies_in_a_long_text_are_those_of_pieces_spread_over_it(monkeypatch):
    monkeypatch.setattr(sampled_softmax, "_COUNTED", 1280)
    text = np.concatenate([np.zeros(5000, np.uint16), np.arange(1, 5, dtype=np.uint16).repeat(2500)])
    counts = sampled_softmax._counts(text, 6)
    assert counts.sum() == 1280 and counts[5] == 0
    np.testing.assert_allclose(counts[:5] / 1280, [1 / 3, *[1 / 6] * 4], atol=0.03)


@pytest.fixture
def words(here):
    """A text of random words, most of them rare."""
    drawn = np.random.default_rng(0).zipf(1.3, 6000)
    (here / "words.txt").write_text(" ".join(f"w{number % 400}" for number in drawn))
    return ["--dataset", "words.txt", *SMALL, "--tokenizer", "word", "--lr", "0.02", "--quiet"]


@pytest.mark.slow
def test_a_model_learns_as_from_all_types(here, words):
    losses = {}
    for size in (0, 200, 10_000):
        assert main([*words, "--steps", "40", "--sampled-softmax", str(size), "--out", f"r{size}"]) == 0
        losses[size] = metrics(here / f"r{size}")[-1]["validation_loss"]
    assert losses[10_000] == losses[0]  # more than there are
    assert losses[200] != losses[0]
    assert losses[200] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.slow
def test_micro_batches_share_a_sample(here, words):
    for parts in (1, 3):
        command = [*words, "--precision", "fp32", "--steps", "10", "--sampled-softmax", "60"]
        assert main([*command, "--accumulate", str(parts), "--out", f"r{parts}"]) == 0
    ours, theirs = (metrics(here / f"r{parts}")[-1]["validation_loss"] for parts in (1, 3))
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_a_run_from_before_the_setting_existed_continues_with_all_types(here, words):
    assert main([*words, "--steps", "10", "--sampled-softmax", "0", "--out", "older"]) == 0
    path = here / "older/training/config.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["sampled_softmax"]
    path.write_text(yaml.safe_dump(settings))
    assert main(["--resume", "older", "--steps", "20"]) == 0
    assert yaml.safe_load(path.read_text())["sampled_softmax"] == 0
