"""One step of a recurrent cell without gradients, for NumPy arrays and tensors: generation and evaluation.

It computes the equations of lm/model/cells.py in place. Gates are grouped: first all gates with a sigmoid, so
that one call computes them, then the candidate, the one gate with a tanh. `group_gates` brings weights into
this order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lm.model.cells import CELLS, split_gates

Array = TypeVar("Array", np.ndarray, Tensor)


# Called with (layer, gates, state) after `advance` has updated the state of a layer, which it may change.
AfterLayer = Callable[[int, Any, Any], None]


class Functions(NamedTuple):
    """The two functions by which NumPy and torch differ."""

    sigmoid_: Callable[..., object]  # sigmoid_(x), in place
    tanh: Callable[..., object]  # tanh(x, out=y)


def group_gates(cell: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (gates * hidden, ...), a matrix or bias in the order of torch -> the rows of the sigmoid gates,
    the rows of the candidate."""
    blocks = split_gates(cell, weight, dim=0)
    activations = CELLS[cell].gates
    sigmoids = [block for name, block in blocks.items() if activations[name] == "sigmoid"]
    (candidate,) = (block for name, block in blocks.items() if activations[name] == "tanh")
    return torch.cat([candidate[:0], *sigmoids]), candidate


def advance(
    cell: str,
    gates: Array,
    candidate_input: Array | None,
    state: Sequence[Array] | Array,
    functions: Functions,
) -> None:
    """Update `state` (parts, rows, hidden) in place; `gates` are overwritten.

    gates (rows, gates * hidden): the summed contributions of input and hidden state, grouped. Only the GRU
    has a `candidate_input` (rows, hidden), the input's contribution to its candidate, because the reset gate
    multiplies that of the hidden state alone.
    """
    if cell == "rnn":
        functions.tanh(gates, out=state[0])
    elif cell == "gru":
        assert candidate_input is not None
        _gru(gates, candidate_input, state[0], functions)
    else:
        _lstm(gates, state[0], state[1], functions)


def _gru(gates: Array, candidate_input: Array, h: Array, functions: Functions) -> None:
    size = h.shape[1]
    sigmoids, n = gates[:, : 2 * size], gates[:, 2 * size :]
    functions.sigmoid_(sigmoids)
    r, z = sigmoids[:, :size], sigmoids[:, size:]
    n *= r
    n += candidate_input
    functions.tanh(n, out=n)
    h -= n  # h' = n + z ⊙ (h - n)
    h *= z
    h += n


def _lstm(gates: Array, h: Array, c: Array, functions: Functions) -> None:
    size = h.shape[1]
    sigmoids, g = gates[:, : 3 * size], gates[:, 3 * size :]
    functions.tanh(g, out=g)
    functions.sigmoid_(sigmoids)
    i, f, o = sigmoids[:, :size], sigmoids[:, size : 2 * size], sigmoids[:, 2 * size :]
    c *= f
    i *= g
    c += i
    functions.tanh(c, out=h)
    h *= o


def output_gate(gates: Array, h: Array) -> Array:
    """The output gate (rows, hidden) of an LSTM, from `gates` after `advance`; `h` (rows, hidden)."""
    size = h.shape[1]
    return gates[:, 2 * size : 3 * size]
