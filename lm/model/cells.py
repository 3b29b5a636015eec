"""The recurrent cells, written from their equations to be read.

Start with `RNNCell`: the others add gates to it. A cell maps the input of one step and the previous
state to the next state. `RecurrentStack` runs cells along the time axis, in layers and optionally in both
directions. With the same weights the results equal those of `torch.nn.RNN`, `GRU` and `LSTM` up to
rounding, and the weights are interchangeable: `stack.load_state_dict(torch.nn.LSTM(...).state_dict())`.

In the equations, x is the input of one step, h the hidden state, c the memory cell of the LSTM, σ the
logistic sigmoid and ⊙ the elementwise product. `gates` of a class lists its gates with their activations,
in the order of their rows in the weights (that of torch; the RNN counts its only map as one); `states`
lists the parts of its state. What depends on this order derives it from here, except for the
fast code in cpu_kernels.py and cell_step.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class RNNCell(nn.Module):
    """The vanilla recurrent cell (Elman 1990, "Finding Structure in Time"):

        h' = tanh(W_xh x + W_hh h)

    Two linear maps, each with a bias, and a squashing function. The next hidden state combines the
    current input with what was kept of all previous inputs.
    """

    gates: ClassVar = {"h": "tanh"}
    states: ClassVar = ("h",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input_map = nn.Linear(input_size, hidden_size)  # W_xh
        self.hidden_map = nn.Linear(hidden_size, hidden_size)  # W_hh

    def forward(self, x: Tensor, state: State) -> State:
        """x (batch, input), (h (batch, hidden),) -> (h' (batch, hidden),)."""
        (h,) = state
        return (torch.tanh(self.input_map(x) + self.hidden_map(h)),)


class GRUCell(nn.Module):
    """The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), as implemented by cuDNN and torch:

        r  = σ(W_xr x + W_hr h)              reset gate: how much of the past the candidate sees
        z  = σ(W_xz x + W_hz h)              update gate: how much of the past to keep
        n  = tanh(W_xn x + r ⊙ (W_hn h))     candidate
        h' = (1 - z) ⊙ n + z ⊙ h

    The reset gate is applied after the linear map W_hn, not before it as in the paper, so that all
    three maps of h are one matrix product. Each gate is a slice of its output.
    """

    gates: ClassVar = {"r": "sigmoid", "z": "sigmoid", "n": "tanh"}
    states: ClassVar = ("h",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input_map = nn.Linear(input_size, 3 * hidden_size)  # W_xr, W_xz, W_xn
        self.hidden_map = nn.Linear(hidden_size, 3 * hidden_size)  # W_hr, W_hz, W_hn

    def forward(self, x: Tensor, state: State) -> State:
        """x (batch, input), (h (batch, hidden),) -> (h' (batch, hidden),)."""
        (h,) = state
        xr, xz, xn = self.input_map(x).chunk(3, dim=-1)
        hr, hz, hn = self.hidden_map(h).chunk(3, dim=-1)
        r = torch.sigmoid(xr + hr)
        z = torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return ((1 - z) * n + z * h,)


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with the forget gate of Gers,
    Schmidhuber & Cummins (2000):

        i  = σ(W_xi x + W_hi h)       input gate: how much of the candidate to write
        f  = σ(W_xf x + W_hf h)       forget gate: how much of the memory to keep
        g  = tanh(W_xg x + W_hg h)    candidate
        o  = σ(W_xo x + W_ho h)       output gate: how much of the memory to show
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')

    The memory c changes only by scaling and addition, so gradients survive many steps.
    """

    gates: ClassVar = {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid"}
    states: ClassVar = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input_map = nn.Linear(input_size, 4 * hidden_size)  # W_xi, W_xf, W_xg, W_xo
        self.hidden_map = nn.Linear(hidden_size, 4 * hidden_size)  # W_hi, W_hf, W_hg, W_ho

    def forward(self, x: Tensor, state: State) -> State:
        """x (batch, input), (h, c), each (batch, hidden) -> (h', c')."""
        h, c = state
        i, f, g, o = (self.input_map(x) + self.hidden_map(h)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c


CELLS: dict[str, type[RNNCell | GRUCell | LSTMCell]] = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}


def split_gates(cell: str, blocks: Tensor, dim: int = -1) -> dict[str, Tensor]:
    """Weights or activations of all gates, concatenated along `dim` -> a view of each gate's block."""
    gates = CELLS[cell].gates
    return dict(zip(gates, blocks.chunk(len(gates), dim), strict=True))


class RecurrentStack(nn.Module):
    """Layers of cells run along time, forward or in both directions.

    Layer k reads the hidden states of layer k-1. If `bidirectional`, a second cell in each layer reads
    from the last step to the first, and the outputs of both are concatenated.

    Called like torch's layers with batch_first=True, except that the state is always a tuple: (h,) for
    RNN and GRU, (h, c) for LSTM, each of shape (layers * directions, batch, hidden).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        layers: int = 1,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.hidden_size, self.states = hidden_size, len(CELLS[cell].states)
        self.directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList()
        for layer in range(layers):
            width = input_size if layer == 0 else hidden_size * self.directions
            for _ in range(self.directions):
                self.cells.append(CELLS[cell](width, hidden_size))
        # Saved under torch's names, so that each implementation can load the other's weights.
        self.register_state_dict_post_hook(_save_as_torch)
        self.register_load_state_dict_pre_hook(_load_from_torch)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (batch, time, input) -> outputs (batch, time, directions * hidden), final state."""
        if state is None:
            zeros = x.new_zeros(len(self.cells), x.shape[0], self.hidden_size)
            state = (zeros,) * self.states
        finals: list[State] = []
        for first in range(0, len(self.cells), self.directions):
            outputs = []
            for index in range(first, first + self.directions):
                reverse = index > first
                output, final = self._run(index, x, tuple(s[index] for s in state), reverse)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _run(self, index: int, x: Tensor, state: State, reverse: bool) -> tuple[Tensor, State]:
        """Run one cell over x (batch, time, input): its outputs in text order, its final state."""
        steps = x.unbind(dim=1)
        outputs = []
        for step in reversed(steps) if reverse else steps:
            state = self.cells[index](step, state)
            outputs.append(state[0])
        if reverse:
            outputs.reverse()
        return torch.stack(outputs, dim=1), state


def _save_as_torch(stack: RecurrentStack, weights: dict[str, Any], prefix: str, _metadata: object) -> None:
    for name in [n for n in weights if n.startswith(prefix + "cells.")]:
        weights[prefix + _torch_name(name.removeprefix(prefix), stack.directions)] = weights.pop(name)


def _load_from_torch(stack: RecurrentStack, weights: dict[str, Any], prefix: str, *_: object) -> None:
    for name, _parameter in stack.named_parameters():
        torch_name = prefix + _torch_name(name, stack.directions)
        if torch_name in weights:
            weights[prefix + name] = weights.pop(torch_name)


def _torch_name(name: str, directions: int) -> str:
    """'cells.3.input_map.weight' -> 'weight_ih_l3', or 'weight_ih_l1_reverse' with two directions."""
    _, index, linear_map, kind = name.split(".")
    layer, direction = divmod(int(index), directions)
    return f"{kind}_{linear_map[0]}h_l{layer}" + ("_reverse" if direction else "")
