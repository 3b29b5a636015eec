"""The recurrent cells, written from their equations, to be read.

Start with `RNNCell`: everything else is that idea with gates. A cell maps one step's input and
the state before it to the state after it; `RecurrentStack` walks a cell along the time axis,
stacks layers and, if asked, reads in both directions. Given the same weights, each is equal to
`torch.nn.RNN`, `GRU` or `LSTM` up to rounding, so a model trained with the one can be used with
the other: `stack.load_state_dict(torch.nn.LSTM(...).state_dict())` works.

The names in the equations: x is the input of one step, h the hidden state, c the LSTM's memory
cell, σ the logistic function, ⊙ the product element by element.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class RNNCell(nn.Module):
    """The vanilla recurrent cell (Elman 1990, "Finding Structure in Time"):

        h' = tanh(W_xh x + W_hh h)

    Two linear maps, each with its bias, and a squashing function. The new hidden state mixes
    what is read now with what was kept of everything read before.
    """

    gates = 1
    states = 1  # h

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input_map = nn.Linear(input_size, hidden_size)  # W_xh
        self.hidden_map = nn.Linear(hidden_size, hidden_size)  # W_hh

    def forward(self, x: Tensor, state: State) -> State:
        """x (batch, input), (h (batch, hidden),) -> (h' (batch, hidden),)."""
        (h,) = state
        return (torch.tanh(self.input_map(x) + self.hidden_map(h)),)


class GRUCell(nn.Module):
    """The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), as cuDNN and torch have it:

        r  = σ(W_xr x + W_hr h)              how much of the past the proposal may see
        z  = σ(W_xz x + W_hz h)              how much of the past to keep
        n  = tanh(W_xn x + r ⊙ (W_hn h))     the proposal
        h' = (1 - z) ⊙ n + z ⊙ h

    The reset gate r acts after the linear map W_hn and not before it as in the paper. That lets
    the three maps of h be one matrix product. The three gates are slices of one map's output.
    """

    gates = 3
    states = 1  # h

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

        i  = σ(W_xi x + W_hi h)       how much of the proposal to write
        f  = σ(W_xf x + W_hf h)       how much of the memory to keep
        g  = tanh(W_xg x + W_hg h)    the proposal
        o  = σ(W_xo x + W_ho h)       how much of the memory to show
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')

    The memory c changes only by scaling and adding, so gradients survive many steps.
    """

    gates = 4
    states = 2  # h, c

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


CELLS: dict[str, type[nn.Module]] = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}


class RecurrentStack(nn.Module):
    """A cell walked along time, in layers, reading forward or in both directions.

    Layer k reads what layer k-1 showed at each step; with `bidirectional` a second cell in each
    layer reads from the last step to the first, and both outputs stand side by side.

    Called like torch's own layers with batch_first=True, except that the state is always a
    tuple: (h,) for the RNN and the GRU, (h, c) for the LSTM, each tensor
    (layers * directions, batch, hidden).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.hidden_size = hidden_size
        self.directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList()
        for layer in range(layers):
            width = input_size if layer == 0 else hidden_size * self.directions
            for _ in range(self.directions):
                self.cells.append(CELLS[cell](width, hidden_size))
        self.dropout = nn.Dropout(dropout)
        # Saved under torch's names, so that either implementation reads the other's weights.
        self.register_state_dict_post_hook(_save_as_torch)
        self.register_load_state_dict_pre_hook(_load_from_torch)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (batch, time, input) -> outputs (batch, time, directions * hidden), state after it."""
        if state is None:
            zeros = x.new_zeros(len(self.cells), x.shape[0], self.hidden_size)
            state = (zeros,) * self.cells[0].states
        finals: list[State] = []
        for first in range(0, len(self.cells), self.directions):
            if first > 0:
                x = self.dropout(x)
            outputs = []
            for index in range(first, first + self.directions):
                reverse = index > first
                output, final = self._walk(index, x, tuple(s[index] for s in state), reverse)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _walk(self, index: int, x: Tensor, state: State, reverse: bool) -> tuple[Tensor, State]:
        """One cell over x (batch, time, input); its outputs in the order of the text."""
        steps = x.unbind(dim=1)
        outputs = []
        for step in reversed(steps) if reverse else steps:
            state = self.cells[index](step, state)
            outputs.append(state[0])
        if reverse:
            outputs.reverse()
        return torch.stack(outputs, dim=1), state


def _save_as_torch(stack: RecurrentStack, weights: dict, prefix: str, _metadata: object) -> None:
    for name in [n for n in weights if n.startswith(prefix + "cells.")]:
        weights[prefix + _torch_name(name.removeprefix(prefix), stack.directions)] = weights.pop(name)


def _load_from_torch(stack: RecurrentStack, weights: dict, prefix: str, *_: object) -> None:
    for name in dict(stack.named_parameters()):
        theirs = prefix + _torch_name(name, stack.directions)
        if theirs in weights:
            weights[prefix + name] = weights.pop(theirs)


def _torch_name(name: str, directions: int) -> str:
    """'cells.3.input_map.weight' -> 'weight_ih_l3', or 'weight_ih_l1_reverse' in both directions."""
    index, map_, kind = re.fullmatch(r"cells\.(\d+)\.(\w+)_map\.(\w+)", name).groups()
    layer, direction = divmod(int(index), directions)
    return f"{kind}_{map_[0]}h_l{layer}" + ("_reverse" if direction else "")
