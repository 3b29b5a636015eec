"""The loss computed in blocks equals the cross-entropy, and so do its gradients."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from lm.model import loss
from lm.model.loss import TypeSample, cross_entropies, decoder_loss, sampled_loss


def make(rows, units, vocab, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    shapes = ((rows, units), (vocab, units), (vocab,))
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    return tensors, torch.randint(0, vocab, (rows,))


@given(
    rows=st.integers(1, 20),
    units=st.integers(1, 5),
    vocab=st.integers(2, 9),
    block=st.integers(1, 60),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_equal_to_the_plain_cross_entropy(rows, units, vocab, block, seed):
    tensors, targets = make(rows, units, vocab, seed=seed)
    plain = F.cross_entropy(F.linear(*tensors), targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "BLOCK", block)
        ours = decoder_loss(*tensors, targets)
    torch.testing.assert_close(ours, plain)
    grads = [torch.autograd.grad(3 * value, tensors) for value in (ours, plain)]
    torch.testing.assert_close(*grads)


def test_gradients_match_finite_differences():
    tensors, targets = make(6, 3, 5)
    assert torch.autograd.gradcheck(lambda *t: decoder_loss(*t, targets), tensors)


def whole(vocab):
    """The sample that has each type once."""
    return TypeSample(torch.arange(vocab), torch.zeros(vocab))


@pytest.mark.slow
@given(rows=st.integers(1, 20), vocab=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_sample_of_all_types_gives_the_exact_loss(rows, vocab, seed):
    tensors, targets = make(rows, 3, vocab, torch.float32, seed)
    sample = whole(vocab)
    both = sampled_loss(*tensors, targets, sample), decoder_loss(*tensors, targets)
    torch.testing.assert_close(*both)
    torch.testing.assert_close(*(torch.autograd.grad(loss, tensors) for loss in both))
    # Half of each type twice is the same; so is a target that is not in the sample.
    twice = TypeSample(sample.types.repeat(2), torch.full((2 * vocab,), -math.log(2)))
    torch.testing.assert_close(sampled_loss(*tensors, targets, twice), both[1])
    others = TypeSample(*(part[sample.types != targets[0]] for part in sample))
    row = tensors[0][:1], *tensors[1:], targets[:1]
    torch.testing.assert_close(sampled_loss(*row, others), decoder_loss(*row))


@pytest.mark.parametrize("sampled", [False, True])
def test_bf16_under_autocast_is_near_float32(sampled):
    tensors, targets = make(64, 32, 500, torch.float32)
    exact = decoder_loss(*tensors, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = sampled_loss(*tensors, targets, whole(500)) if sampled else decoder_loss(*tensors, targets)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=1e-2, atol=0)
    for ours, right in zip(*(torch.autograd.grad(v, tensors) for v in (rough, exact)), strict=True):
        assert (ours - right).norm() < 0.02 * right.norm()


@given(rows=st.integers(1, 20), vocab=st.integers(2, 9), block=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_losses_of_tokens_equal_the_plain_cross_entropy(rows, vocab, block):
    (hidden, weight, bias), targets = make(rows, 3, vocab, torch.float32)
    plain = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "BLOCK", block)
        ours = cross_entropies(lambda h: F.linear(h, weight, bias), vocab, hidden, targets)
        ours_grads = torch.autograd.grad(ours.square().sum(), (hidden, weight, bias))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(ours_grads, torch.autograd.grad(plain.square().sum(), (hidden, weight, bias)))
