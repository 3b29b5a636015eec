"""A generation step on a CPU: a few matrix products that read each weight once, and arithmetic in between.

For so few rows, a torch operation spends more time on overhead than on arithmetic, and several times as much
as NumPy does. The products are therefore torch's (lm/generation/matmul.py) and the arithmetic of the cells is
NumPy's, in place.
With σ(x) = (1 + tanh(x/2)) / 2, all gates are a tanh; the factor 1/2 is folded exactly into the weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lm.generation.matmul import Linear, pack_linear
from lm.model.cell_step import AfterLayer, Functions, advance, gate_views, group_gates
from lm.model.cells import CELLS, State
from lm.model.inference import MAX_TABLE
from lm.model.network import RecurrentLM


class CPUWeights:
    """The weights of a network as a step uses them, copied and stored in `precision`."""

    def __init__(self, network: RecurrentLM, precision: str):
        config, embedding = network.config, network.embedding.weight.detach()
        self.cell, self.residual, self.hidden_size = config.cell, config.residual, config.hidden_size
        self.embedding = embedding.clone().numpy()
        # Each token's contribution to the gates of the first layer is looked up, if that table is not too
        # large. In the other layers both maps are one product, except for the GRU, whose reset gate comes
        # between them.
        self.table: np.ndarray | None = None
        self.inputs: list[Linear | None] = []
        self.hidden: list[Linear] = []
        for layer in range(config.layers):
            w_ih, w_hh, b_ih, b_hh = (_grouped(config.cell, w) for w in network.recurrent.weights(layer))
            # Hidden units are between -1 and 1; a residual connection adds those of another layer.
            bound = _max_abs(embedding) if layer == 0 else float(layer if config.residual else 1)
            inputs = None
            if layer == 0 and len(embedding) * len(w_ih) <= MAX_TABLE:
                self.table = torch.addmm(b_ih, embedding, w_ih.t()).numpy()
                bound = 0.0
            elif config.cell == "gru":
                inputs = pack_linear(w_ih, b_ih, precision, bound)
            else:
                w_hh, b_hh = torch.cat([w_ih, w_hh], dim=1), b_ih + b_hh
            self.inputs.append(inputs)
            self.hidden.append(pack_linear(w_hh, b_hh, precision, max(bound, 1.0)))
        last_bound: float | None = float(config.layers if config.residual else 1)
        self.projection = None
        if network.projection is not None:
            weight = network.projection.weight.detach()
            self.projection = pack_linear(weight, weight.new_zeros(len(weight)), precision, last_bound)
            last_bound = None
        weight, bias = network.decoder.weight.detach(), network.decoder.bias.detach()
        self.decoder = pack_linear(weight, bias, precision, last_bound)


class CPUBatch:
    """Sequences on a CPU, one per row; see `Batch`. `after_layer` may change the new state of each layer."""

    def __init__(self, weights: CPUWeights, after_layer: AfterLayer | None = None):
        self._weights, self._after_layer = weights, after_layer
        self.count = 0
        parts = len(CELLS[weights.cell].states)
        # (part, layer, row, unit); part 0 is h, part 1 the LSTM's c.
        self._state = np.zeros((parts, len(weights.hidden), 1, weights.hidden_size), np.float32)

    def add(self, state: State) -> None:
        """Add a sequence in this state (layers, 1, hidden) as the last row."""
        if self.count == self._state.shape[2]:
            self._state = np.concatenate([self._state, np.zeros_like(self._state)], axis=2)
        for target, part in zip(self._state, state, strict=True):
            target[:, self.count] = part[:, 0].numpy()
        self.count += 1

    def remove(self, row: int) -> None:
        """Remove a sequence; the last row takes its place."""
        self.count -= 1
        self._state[:, :, row] = self._state[:, :, self.count]

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row can be selected several times."""
        self._state = self._state[:, :, rows]
        self.count = len(rows)

    def state(self, row: int) -> State:
        """A copy of the state (layers, 1, hidden) of a row."""
        return tuple(torch.from_numpy(part[:, row, None].copy()) for part in self._state)

    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""
        weights, ids = self._weights, tokens.numpy()
        x = weights.embedding[ids] if weights.table is None else np.empty(0)
        for layer, (inputs, hidden) in enumerate(zip(weights.inputs, weights.hidden, strict=True)):
            state = self._state[:, layer, : self.count]
            h, from_input = state[0], None
            if layer == 0 and weights.table is not None:
                from_input = weights.table[ids]
            elif inputs is not None:
                from_input = inputs(torch.from_numpy(x))
            else:
                h = np.concatenate([x, h], axis=1)
            gates = hidden(torch.from_numpy(h))
            candidate_input = None
            if from_input is not None:
                summed = 2 * weights.hidden_size if weights.cell == "gru" else gates.shape[1]
                gates[:, :summed] += from_input[:, :summed]
                candidate_input = from_input[:, summed:]
            advance(weights.cell, gate_views(weights.cell, gates), candidate_input, state, _FUNCTIONS)
            if self._after_layer is not None:
                self._after_layer(layer, gates, state)
            x = x + state[0] if weights.residual and layer > 0 else state[0]
        if weights.projection is not None:
            x = weights.projection(torch.from_numpy(x))
        return torch.from_numpy(weights.decoder(torch.from_numpy(x)))


def _sigmoid_of_half(x: np.ndarray) -> None:
    """x/2 -> σ(x), in place."""
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5


_FUNCTIONS = Functions(_sigmoid_of_half, np.tanh)


def _grouped(cell: str, weight: Tensor) -> Tensor:
    """A matrix or bias with grouped gates, the sigmoid gates halved for `_sigmoid_of_half`."""
    sigmoids, candidate = group_gates(cell, weight.detach())
    return torch.cat([sigmoids * 0.5, candidate])


def _max_abs(numbers: Tensor) -> float:
    return float(numbers.abs().max())
