"""Muon against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.training.muon import POLYNOMIALS, Muon, orthogonalized


def reference(matrix):
    """The polynomials applied to the singular values themselves."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (matrix.norm() * 1.01 + 1e-7)
    for a, b, c in POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    return u @ values.diag() @ v


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_only_the_singular_values_change_as_the_polynomials_say(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(orthogonalized(matrix), reference(matrix), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_come_close_to_one(shape, dtype):
    matrix = torch.randn(shape)
    if shape[0] == shape[1]:  # or the smallest singular values would be tiny
        matrix = torch.eye(64) + 0.03 * matrix
    values = torch.linalg.svdvals(orthogonalized(matrix.to(dtype)).float())
    assert values.min() > 0.18
    assert values.max() < 1.9


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_a_step_is_orthogonalized_nesterov_momentum_with_decay(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wanted, momentum = weight.detach().clone(), torch.zeros(shape, dtype=torch.float64)
    muon = Muon([weight], lr=0.1, weight_decay=0.5, precision=torch.float64)
    for _ in range(3):
        weight.grad = torch.randn(shape, dtype=torch.float64)
        muon.step()
        momentum = 0.95 * momentum + 0.05 * weight.grad
        update = reference(0.05 * weight.grad + 0.95 * momentum)
        wanted = wanted * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(7) * update
        torch.testing.assert_close(weight.detach(), wanted, rtol=1e-6, atol=1e-6)


def test_a_zero_gradient_changes_nothing():
    weight = torch.randn(4, 4, requires_grad=True)
    before = weight.detach().clone()
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.0, precision=torch.float32).step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-12])
def test_stacked_matrices_of_any_scale_change_as_single_ones(scale):
    def stepped(**options):
        torch.manual_seed(0)
        weights = [torch.randn(shape, requires_grad=True) for shape in [(6, 4), (3, 8), (6, 4)]]
        muon = Muon(weights, lr=0.1, weight_decay=0.5, **options)
        for _ in range(3):
            for weight in weights:
                weight.grad = scale * torch.randn(weight.shape)
            muon.step()
        return weights

    expected = stepped(precision=torch.float32)
    torch.testing.assert_close(stepped(precision=torch.float32, stacked=True), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stepped(precision=torch.float16, stacked=True), expected, rtol=0.02, atol=0.02)
