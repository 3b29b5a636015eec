"""The readable cells equal torch's layers: values, states and gradients."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.model.cells import CELLS, RecurrentStack

TORCH = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", CELLS)
@given(
    input_size=st.integers(1, 7),
    hidden_size=st.integers(1, 9),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch=st.integers(1, 4),
    time=st.integers(1, 6),
    with_state=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_equal_to_torch(cell, input_size, hidden_size, layers, bidirectional, batch, time, with_state, seed):
    torch.manual_seed(seed)
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": torch.float64}
    reference = TORCH[cell](input_size, hidden_size, layers, **options)
    ours = RecurrentStack(cell, input_size, hidden_size, layers, bidirectional=bidirectional).double()
    ours.load_state_dict(reference.state_dict())

    x = torch.randn(batch, time, input_size, dtype=torch.float64)
    rows = layers * (2 if bidirectional else 1)
    state = None
    if with_state:
        state = tuple(torch.randn(rows, batch, hidden_size, dtype=torch.float64) for _ in CELLS[cell].states)
    results = []
    for layer in (reference, ours):
        inputs = x.clone().requires_grad_()
        initial = state if layer is ours or state is None or cell == "lstm" else state[0]
        output, final = layer(inputs, initial)
        # A loss that weighs every value and every state differently.
        loss = sum(
            (t * torch.arange(1.0, t.numel() + 1).view_as(t)).sum() for t in (output, *as_tuple(final))
        )
        loss.backward()
        gradients = dict(layer.named_parameters())
        results.append((output, as_tuple(final), inputs.grad, gradients))
    (output, final, x_grad, weights), (our_output, our_final, our_x_grad, our_weights) = results

    close = {"rtol": 1e-9, "atol": 1e-6}
    torch.testing.assert_close(our_output, output, **close)
    torch.testing.assert_close(our_final, final, **close)
    torch.testing.assert_close(our_x_grad, x_grad, **close)
    grads = {name: weight.grad for name, weight in our_weights.items()}
    renamed = RecurrentStack(cell, input_size, hidden_size, layers, bidirectional=bidirectional).double()
    with torch.no_grad():
        for name, weight in renamed.named_parameters():
            weight.copy_(grads[name])
    saved = renamed.state_dict()
    assert saved.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(saved[name], weight.grad, **close)


def test_weights_can_be_exchanged_with_torch():
    stack = RecurrentStack("gru", 3, 4, 2, bidirectional=True)
    theirs = torch.nn.GRU(3, 4, 2, bidirectional=True)
    theirs.load_state_dict(stack.state_dict())
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(stack.state_dict()[name], weight)


def test_the_vanilla_cell_computes_its_equation():
    cell = CELLS["rnn"](2, 3)
    x, h = torch.randn(1, 2), torch.randn(1, 3)
    expected = torch.tanh(
        x @ cell.input_map.weight.T
        + cell.input_map.bias
        + h @ cell.hidden_map.weight.T
        + cell.hidden_map.bias
    )
    torch.testing.assert_close(cell(x, (h,))[0], expected)
