"""A decoding step on a CPU: a few products that read each weight once, and arithmetic between them.

At so few rows torch's operations cost more than what they compute, several times as much as numpy's:
the products are torch's (lm/generation/matmul.py), the cells' equations are numpy's, in place. With
σ(x) = (1 + tanh(x/2)) / 2 one tanh serves all gates; the halves lie in the weights, where they are exact.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lm.generation.matmul import Product, product
from lm.model.cells import CELLS, State
from lm.model.network import RecurrentLM

_LARGEST_TABLE = 2**25  # numbers


class CPUWeights:
    """A network's weights as a step needs them, copied and kept in `precision`."""

    def __init__(self, network: RecurrentLM, precision: str):
        config, embedding = network.config, network.embedding.weight.detach()
        self.cell, self.residual, self.hidden_size = config.cell, config.residual, config.hidden_size
        self.embedding = embedding.clone().numpy()
        # What a token contributes to the first layer's gates is looked up, where that table is not too
        # large. Elsewhere both maps of a layer are one product, but for the GRU, whose reset gate comes
        # between them.
        self.table: np.ndarray | None = None
        self.inputs: list[Product | None] = []
        self.hidden: list[Product] = []
        for layer in range(config.layers):
            w_ih, w_hh, b_ih, b_hh = (_ordered(config.cell, w) for w in network.recurrent.weights(layer))
            # Hidden units lie between -1 and 1; with the residual path, layers add up.
            below = _largest(embedding) if layer == 0 else float(layer if config.residual else 1)
            inputs = None
            if layer == 0 and len(embedding) * len(w_ih) <= _LARGEST_TABLE:
                self.table = torch.addmm(b_ih, embedding, w_ih.t()).numpy()
                below = 0.0
            elif config.cell == "gru":
                inputs = product(w_ih, b_ih, precision, below)
            else:
                w_hh, b_hh = torch.cat([w_ih, w_hh], dim=1), b_ih + b_hh
            self.inputs.append(inputs)
            self.hidden.append(product(w_hh, b_hh, precision, max(below, 1.0)))
        top: float | None = float(config.layers if config.residual else 1)
        self.projection = None
        if network.projection is not None:
            weight = network.projection.weight.detach()
            self.projection = product(weight, weight.new_zeros(len(weight)), precision, top)
            top = None
        self.decoder = product(network.decoder.weight.detach(), network.decoder.bias.detach(), precision, top)


class CPUBatch:
    """Streams side by side, a row each, that can be added and removed between steps."""

    def __init__(self, weights: CPUWeights):
        self._weights = weights
        self.count = 0
        parts = CELLS[weights.cell].states
        # (part, layer, row, unit); part 0 is h, part 1 the LSTM's c.
        self._state = np.zeros((parts, len(weights.hidden), 1, weights.hidden_size), np.float32)

    def add(self, state: State) -> None:
        """A stream in this state (layers, 1, hidden), as the last row."""
        if self.count == self._state.shape[2]:
            self._state = np.concatenate([self._state, np.zeros_like(self._state)], axis=2)
        for mine, part in zip(self._state, state, strict=True):
            mine[:, self.count] = part[:, 0].numpy()
        self.count += 1

    def remove(self, row: int) -> None:
        """Take a stream out; the last row moves into its place."""
        self.count -= 1
        self._state[:, :, row] = self._state[:, :, self.count]

    def select(self, rows: list[int]) -> None:
        """Go on with these of the rows, in this order; a row may be named several times."""
        self._state = self._state[:, :, rows]
        self.count = len(rows)

    def state(self, row: int) -> State:
        """A copy of a stream's state (layers, 1, hidden)."""
        return tuple(torch.from_numpy(part[:, row, None].copy()) for part in self._state)

    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""
        weights, read = self._weights, tokens.numpy()
        x = weights.embedding[read] if weights.table is None else None
        for layer, (inputs, hidden) in enumerate(zip(weights.inputs, weights.hidden, strict=True)):
            state = self._state[:, layer, : self.count]
            h, from_below = state[0], None
            if layer == 0 and weights.table is not None:
                from_below = weights.table[read]
            elif inputs is not None:
                from_below = inputs(torch.from_numpy(x))
            else:
                h = np.concatenate([x, h], axis=1)
            _ADVANCE[weights.cell](from_below, hidden(torch.from_numpy(h)), state)
            x = x + state[0] if weights.residual and layer > 0 else state[0]
        if weights.projection is not None:
            x = weights.projection(torch.from_numpy(x))
        return torch.from_numpy(weights.decoder(torch.from_numpy(x)))


def _largest(numbers: Tensor) -> float:
    return float(numbers.abs().max())


def _rnn(from_below: np.ndarray | None, gates: np.ndarray, state: np.ndarray) -> None:
    if from_below is not None:
        gates += from_below
    np.tanh(gates, out=state[0])


def _gru(from_below: np.ndarray, gates: np.ndarray, state: np.ndarray) -> None:
    (h,) = state
    size = h.shape[1]
    both, proposal = gates[:, : 2 * size], gates[:, 2 * size :]
    both += from_below[:, : 2 * size]
    _open(both)
    r, z = both[:, :size], both[:, size:]
    proposal *= r
    proposal += from_below[:, 2 * size :]
    np.tanh(proposal, out=proposal)
    h -= proposal
    h *= z
    h += proposal


def _lstm(from_below: np.ndarray | None, gates: np.ndarray, state: np.ndarray) -> None:
    h, c = state
    size = h.shape[1]
    if from_below is not None:
        gates += from_below
    g = gates[:, 3 * size :]
    np.tanh(g, out=g)
    three = gates[:, : 3 * size]
    _open(three)
    i, f, o = three[:, :size], three[:, size : 2 * size], three[:, 2 * size :]
    c *= f
    i *= g
    c += i
    np.tanh(c, out=h)
    h *= o


def _open(halves: np.ndarray) -> None:
    """x/2 -> σ(x), in place."""
    np.tanh(halves, out=halves)
    halves *= 0.5
    halves += 0.5


_ADVANCE = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


def _ordered(cell: str, weight: Tensor) -> Tensor:
    """Rows in torch's order of gates -> the gates with σ first and halved, then the proposal."""
    weight = weight.detach()
    if cell == "rnn":
        return weight
    if cell == "gru":  # r, z, n
        *sigmoids, proposal = weight.chunk(3)
    else:  # i, f, g, o
        i, f, proposal, o = weight.chunk(4)
        sigmoids = [i, f, o]
    return torch.cat([torch.cat(list(sigmoids)) * 0.5, proposal])
