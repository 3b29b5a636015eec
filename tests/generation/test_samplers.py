"""Each sampler against its definition."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config import SamplingConfig
from lm.generation.samplers import choose, filtered, temperature, top_k, top_p

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
def test_top_k_keeps_what_fewer_than_k_tokens_beat(logits, k):
    beaten_by = (logits[0][None, :] > logits[0][:, None]).sum(dim=1)
    assert torch.equal(kept(top_k(logits, k)), beaten_by < k)


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


@given(logits=LOGITS, k=st.integers(1, 5), p=st.floats(0.1, 1), u=st.floats(0, 1, exclude_max=True))
@COMMON
def test_a_token_that_was_filtered_out_is_never_chosen(logits, k, p, u):
    sampling = SamplingConfig(temperature=0.7, top_k=k, top_p=p)
    token = choose(logits, torch.tensor([u], dtype=torch.float64), sampling)
    assert kept(filtered(logits, sampling))[token]


@pytest.mark.parametrize("sampling", [SamplingConfig(greedy=True), SamplingConfig(temperature=0.0)])
def test_greedy_takes_the_likeliest(sampling):
    logits = torch.tensor([[0.1, 2.0, 1.9]])
    for u in (0.0, 0.5, 0.99):
        assert choose(logits, torch.tensor([u], dtype=torch.float64), sampling).item() == 1


def test_choices_have_the_probabilities_of_the_logits():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(100_000, -1)
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = choose(logits, uniforms, SamplingConfig(temperature=1.0))
    shares = torch.bincount(tokens, minlength=3) / 100_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.006, rtol=0)


def test_each_row_depends_on_itself_alone():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    uniforms = torch.rand(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sampling = SamplingConfig(top_p=0.9)
    together = choose(logits, uniforms, sampling)
    alone = torch.cat([choose(logits[i : i + 1], uniforms[i : i + 1], sampling) for i in range(5)])
    assert torch.equal(together, alone)
