"""One step of a recurrent cell without gradients, for NumPy arrays and tensors: generation and evaluation.

It computes the equations of lm/model/cells.py in place. Gates are grouped: first all gates with a sigmoid, so
that one call computes them, then the candidate, the one gate with a tanh. `group_gates` brings weights into
this order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

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


class Gates(NamedTuple, Generic[Array]):
    """Grouped gates, as views of an array (..., gates * hidden)."""

    sigmoids: Array  # all gates with a sigmoid, side by side
    each: tuple[Array, ...]  # these one by one, (..., hidden)
    candidate: Array  # (..., hidden)


def gate_views(cell: str, gates: Array) -> Gates[Array]:
    """gates (..., gates * hidden), grouped -> views."""
    size = gates.shape[-1] // len(CELLS[cell].gates)
    bounds = range(0, gates.shape[-1] - size, size)
    each = tuple(gates[..., begin : begin + size] for begin in bounds)
    return Gates(gates[..., :-size], each, gates[..., -size:])


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
    gates: Gates[Array],
    candidate_input: Array | None,
    state: Sequence[Array] | Array,
    functions: Functions,
) -> None:
    """Update `state` (parts, rows, hidden) in place; `gates` are overwritten.

    gates (rows, gates * hidden): the summed contributions of input and hidden state. Only the GRU has a
    `candidate_input` (rows, hidden), the input's contribution to its candidate, because the reset gate
    multiplies that of the hidden state alone.
    """
    if cell == "rnn":
        functions.tanh(gates.candidate, out=state[0])
    elif cell == "gru":
        assert candidate_input is not None
        _gru(gates, candidate_input, state[0], functions)
    else:
        _lstm(gates, state[0], state[1], functions)


def _gru(gates: Gates[Array], candidate_input: Array, h: Array, functions: Functions) -> None:
    sigmoids, (r, z), n = gates
    functions.sigmoid_(sigmoids)
    n *= r
    n += candidate_input
    functions.tanh(n, out=n)
    h -= n  # h' = n + z ⊙ (h - n)
    h *= z
    h += n


def _lstm(gates: Gates[Array], h: Array, c: Array, functions: Functions) -> None:
    sigmoids, (i, f, o), g = gates
    functions.tanh(g, out=g)
    functions.sigmoid_(sigmoids)
    c *= f
    i *= g
    c += i
    functions.tanh(c, out=h)
    h *= o


def output_gate(gates: Array) -> Array:
    """The output gate (rows, hidden) of an LSTM, from `gates` (rows, gates * hidden) after `advance`."""
    _, _, output = gate_views("lstm", gates).each
    return output
