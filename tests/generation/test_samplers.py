"""Each sampler against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import SamplingConfig
from lm.generation.samplers import (
    SamplingTensors,
    apply_filters,
    draw_without_waiting,
    frequency_penalty,
    is_greedy,
    min_p,
    presence_penalty,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
    typical_p,
)
from tests.generation.strategies import SAMPLINGS

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12).map(lambda v: torch.tensor([v]))
COMMON = settings(deadline=None)


def kept(logits):
    return torch.isfinite(logits)[0]


@given(logits=LOGITS, t=st.floats(0.1, 5))
@COMMON
def test_temperature_is_a_power_of_the_probabilities(logits, t):
    expected = logits.double().softmax(-1) ** (1 / t)
    expected /= expected.sum()
    torch.testing.assert_close(temperature(logits.double(), t).softmax(-1), expected)


@given(logits=LOGITS, k=st.integers(1, 15))
@COMMON
def test_top_k_keeps_tokens_with_fewer_than_k_more_likely_ones(logits, k):
    more_likely = (logits[0][None, :] > logits[0][:, None]).sum(dim=1)
    assert torch.equal(kept(top_k(logits, k)), more_likely < k)


@given(logits=LOGITS, p=st.floats(0.01, 0.999))
@COMMON
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    mask = kept(top_p(logits, p))
    probabilities = logits.softmax(-1)[0]
    inside = probabilities[mask].sum().item()
    assert mask.any()
    assert probabilities[mask].min() >= probabilities[~mask].max() if (~mask).any() else True
    assert inside >= p - 1e-5
    assert inside - probabilities[mask].min().item() < p + 1e-5


@given(logits=LOGITS, share=st.floats(0.01, 1))
@COMMON
def test_min_p_keeps_tokens_with_that_share_of_the_top_probability(logits, share):
    probabilities = logits.double().softmax(-1)[0]
    mask = kept(min_p(logits.double(), share))
    clear = (probabilities - share * probabilities.max()).abs() > 1e-9
    assert torch.equal(mask[clear], (probabilities >= share * probabilities.max())[clear])


@given(logits=LOGITS, p=st.floats(0.01, 0.999))
@COMMON
def test_typical_p_keeps_the_most_typical_tokens_that_reach_p(logits, p):
    logits = logits.double()
    mask = kept(typical_p(logits, p))
    probabilities = logits.softmax(-1)[0]
    distance = (probabilities.log() + (-(probabilities * probabilities.log()).sum())).abs()
    inside = probabilities[mask].sum().item()
    assert mask.any()
    assert distance[mask].max() <= (distance[~mask].min() if (~mask).any() else math.inf) + 1e-9
    assert inside >= p - 1e-9
    least_typical = distance[mask].argmax()
    assert inside - probabilities[mask][least_typical].item() < p + 1e-9


@pytest.mark.parametrize("keep", [top_p, typical_p])
def test_rounding_removes_nothing_from_a_row_without_a_filter(keep):
    logits = 6 * torch.randn(40, 5000, generator=torch.Generator().manual_seed(0))
    strengths = torch.full((40, 1), 1.0)
    strengths[0] = 0.5
    assert torch.isfinite(keep(logits, strengths)[1:]).all()


COUNTS = st.lists(st.integers(0, 4), min_size=12, max_size=12)


@given(logits=LOGITS, counts=COUNTS, penalty=st.floats(0.5, 3))
@COMMON
def test_penalties_match_their_definitions(logits, counts, penalty):
    counts = torch.tensor([counts[: logits.shape[1]]], dtype=torch.float32)
    rows = list(zip(logits[0].tolist(), counts[0].tolist(), strict=True))
    repetition = [(x / penalty if x > 0 else x * penalty) if n else x for x, n in rows]
    assert repetition_penalty(logits, counts, penalty)[0].tolist() == pytest.approx(repetition, abs=1e-5)
    presence = [x - penalty * (n > 0) for x, n in rows]
    assert presence_penalty(logits, counts, penalty)[0].tolist() == pytest.approx(presence, abs=1e-5)
    frequency = [x - penalty * n for x, n in rows]
    assert frequency_penalty(logits, counts, penalty)[0].tolist() == pytest.approx(frequency, abs=1e-5)


def stacked(*samplings, vocab_size):
    return SamplingTensors.stack(samplings, vocab_size, torch.device("cpu"))


def uniform(*values):
    return torch.tensor(values, dtype=torch.float64)


@given(logits=LOGITS, sampling=SAMPLINGS, u=st.floats(0, 1, exclude_max=True))
@COMMON
def test_a_removed_token_is_never_sampled(logits, sampling, u):
    tensors = stacked(sampling, vocab_size=logits.shape[1])
    (token,) = sample(logits, uniform(u), tensors)
    if is_greedy(sampling):  # which no filter changes, not even typical_p
        assert logits[0, token] == logits.max()
    else:
        assert kept(apply_filters(logits, tensors))[token]


@given(
    logits=st.integers(2, 12).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-8, 8, width=32), min_size=n, max_size=n), min_size=2, max_size=6
        )
    ),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_each_row_is_sampled_independently(logits, data):
    """Whatever the settings of the other rows are."""
    logits = torch.tensor(logits)
    rows, size = logits.shape
    samplings = data.draw(st.lists(SAMPLINGS, min_size=rows, max_size=rows))
    uniforms = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=rows, max_size=rows))
    together = sample(logits, uniform(*uniforms), stacked(*samplings, vocab_size=size))
    for row in range(rows):
        alone = sample(
            logits[row : row + 1], uniform(uniforms[row]), stacked(samplings[row], vocab_size=size)
        )
        assert together[row] == alone[0]


@pytest.mark.parametrize("sampling", [SamplingConfig(greedy=True), SamplingConfig(temperature=0.0)])
def test_greedy_chooses_the_most_likely_token(sampling):
    logits = torch.tensor([[0.1, 2.0, 1.9]])
    for u in (0.0, 0.5, 0.99):
        assert sample(logits, uniform(u), stacked(sampling, vocab_size=3)).item() == 1


@pytest.mark.parametrize("temperature", [1e-8, 1e-30, (1e-8, 1.0)])
def test_a_tiny_temperature_separates_close_logits(temperature):
    logits = torch.tensor([[3.0, 3.0 + 1e-6]])
    tensors = stacked(SamplingConfig(temperature=temperature), vocab_size=2)
    assert sample(logits, uniform(1e-12), tensors).item() == 1
    assert draw_without_waiting(logits / tensors.temperature, uniform(1e-12), tensors).item() == 1


@pytest.mark.parametrize("filter", [{}, {"top_k": 2}, {"top_p": 0.9}, {"typical_p": 0.9}, {"min_p": 0.5}])
def test_the_largest_bias_can_be_divided_by_any_temperature(filter):
    logits = torch.tensor([[1e30, 1e30, 2.0, -1e30, -torch.inf]])
    tensors = stacked(SamplingConfig(temperature=1e-30, **filter), vocab_size=5)
    drawn = [sample(logits, uniform(u), tensors).item() for u in (0.0, 0.99)]
    assert drawn == [0, 1]


def test_samples_have_the_probabilities_of_the_logits():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(100_000, -1)
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensors = stacked(SamplingConfig(temperature=1.0), vocab_size=3)
    shares = torch.bincount(sample(logits, uniforms, tensors), minlength=3) / 100_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.006, rtol=0)


def test_rounding_never_selects_a_token_after_the_last_remaining_one():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]])
    tensors = stacked(SamplingConfig(temperature=1.0), vocab_size=4)
    assert sample(logits, uniform(1.0), tensors).item() == 1


@pytest.mark.slow
@given(
    samplings=st.lists(SAMPLINGS, min_size=1, max_size=6),
    size=st.integers(2, 60),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.5, 2.0, 8.0]),
    impossible=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_same_tokens_are_drawn_without_waiting(samplings, size, seed, spread, impossible):
    choose = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(len(samplings), size, generator=choose, dtype=torch.float64)
    if impossible:
        logits[:, 0] = -torch.inf
    tensors = SamplingTensors.stack(samplings, size, torch.device("cpu"))
    scaled = logits / tensors.temperature
    # Many numbers for the same logits: what is drawn from them shows which tokens are left.
    for number in torch.linspace(0, 1, 41, dtype=torch.float64)[:-1]:
        uniforms = (number + torch.rand(len(samplings), generator=choose, dtype=torch.float64) / 41).clamp(
            max=1
        )
        expected = sample(logits, uniforms, tensors)
        assert torch.equal(draw_without_waiting(scaled, uniforms, tensors), expected)
