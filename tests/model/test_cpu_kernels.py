"""The CPU layer equals torch's, and its gradients match finite differences."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.model.cells import CELLS
from lm.model.cpu_kernels import cpu_layer

TORCH = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def make(cell, inputs, hidden, batch, time, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    theirs = TORCH[cell](inputs, hidden).to(dtype)
    x = torch.randn(time, batch, inputs, dtype=dtype, requires_grad=True)
    state = tuple(torch.randn(batch, hidden, dtype=dtype, requires_grad=True) for _ in CELLS[cell].states)
    return theirs, x, state


def results(cell, theirs, x, state, by_torch):
    """Outputs, final state, and all gradients of a loss that weighs each value differently."""
    inputs = [x, *state, *theirs.parameters()]
    if by_torch:
        initial = tuple(part[None] for part in state)
        out, final = theirs(x, initial if cell == "lstm" else initial[0])
        final = tuple(part[0] for part in (final if cell == "lstm" else (final,)))
    else:
        out, final = cpu_layer(cell, x, state, list(theirs.parameters()))
    values = [out, *final]
    loss = sum((v * torch.linspace(-1, 2, v.numel(), dtype=v.dtype).view_as(v)).sum() for v in values)
    return values, torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("cell", CELLS)
@given(
    inputs=st.integers(1, 7),
    hidden=st.integers(1, 9),
    batch=st.integers(1, 5),
    time=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_equal_to_torch(cell, inputs, hidden, batch, time, seed):
    both = [
        results(cell, *make(cell, inputs, hidden, batch, time, seed=seed), by_torch)
        for by_torch in (True, False)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_equal_to_torch_in_float32_through_the_packed_matrices(cell):
    both = [results(cell, *make(cell, 24, 40, 8, 12, torch.float32), by) for by in (True, False)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_match_finite_differences(cell):
    theirs, x, state = make(cell, 2, 3, 2, 4)
    weights = [p.detach().requires_grad_() for p in theirs.parameters()]

    def layer(x, *rest):
        out, final = cpu_layer(cell, x, rest[:-4], list(rest[-4:]))
        return out, *final

    assert torch.autograd.gradcheck(layer, (x, *state, *weights))


@pytest.mark.parametrize("cell", CELLS)
def test_a_loss_on_the_final_state_alone(cell):
    theirs, x, state = make(cell, 3, 4, 2, 5)
    _, final = cpu_layer(cell, x, state, list(theirs.parameters()))
    ours = torch.autograd.grad(final[-1].sum(), x)
    initial = tuple(part[None] for part in state)
    _, final = theirs(x, initial if cell == "lstm" else initial[0])
    last = final[-1] if cell == "lstm" else final
    torch.testing.assert_close(ours, torch.autograd.grad(last.sum(), x))


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_under_autocast_is_close_to_float32(cell):
    theirs, x, state = make(cell, 32, 64, 8, 20, torch.float32)
    expected, expected_grads = results(cell, theirs, x, state, by_torch=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_grads = results(cell, theirs, x, state, by_torch=False)
    assert rounded[0].dtype == torch.bfloat16
    assert all(grad.dtype == torch.float32 for grad in rounded_grads)
    for ours, exact in zip([*rounded, *rounded_grads], [*expected, *expected_grads], strict=True):
        assert (ours.float() - exact).norm() < 0.03 * exact.norm()
