"""A generation step on a GPU, captured as a CUDA graph.

For so few rows, launching kernels takes longer than running them: a step is captured once and from then on
launched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lm.generation.cell_step import Functions, advance, group_gates
from lm.model.cells import CELLS, State
from lm.model.device import Precision
from lm.model.network import RecurrentLM

# Kernels chosen for other numbers of rows round differently. A step always computes whole blocks of this many
# rows, so that a sequence is generated identically alone and in a batch.
_BLOCK = 64
_FUNCTIONS = Functions(lambda x: x.sigmoid_(), torch.tanh)


class GPUWeights:
    """The weights of a network as a step uses them, copied: both matrices of a layer side by side, for one
    product."""

    def __init__(self, network: RecurrentLM, precision: str):
        config, self.dtype = network.config, Precision(precision).dtype
        self.cell, self.residual, self.hidden_size = config.cell, config.residual, config.hidden_size
        self.layers = []
        for layer in range(config.layers):
            w_ih, w_hh, b_ih, b_hh = (
                group_gates(self.cell, weight.detach()) for weight in network.recurrent.weights(layer)
            )
            if self.cell == "gru":
                weight = torch.cat([_candidate_apart(*w_ih, 1), _candidate_apart(*w_hh, 0)], dim=1)
                bias = _candidate_apart(*b_hh, 0) + _candidate_apart(*b_ih, 1)
            else:
                weight = torch.cat([torch.cat(w_ih), torch.cat(w_hh)], dim=1)
                bias = torch.cat(b_ih) + torch.cat(b_hh)
            self.layers.append((weight.t().contiguous().to(self.dtype), bias.to(self.dtype)))
        self.embedding = network.embedding.weight.detach().to(self.dtype, copy=True)
        projection = network.projection
        self.projection = None if projection is None else projection.weight.detach().t().to(self.dtype)
        self.decoder = network.decoder.weight.detach().t().to(self.dtype, copy=True)
        self.decoder_bias = network.decoder.bias.detach().to(self.dtype, copy=True)
        self._step: Callable[[Tensor, Tensor], Tensor] | None = None

    def step(self, tokens: Tensor, state: Tensor) -> Tensor:
        """tokens (rows,) of a block -> logits (rows, vocab); updates state (parts, layers, rows, hidden)."""
        if self._step is None:
            self._step = self._capture(tokens, state) if tokens.device.type == "cuda" else self._compute
        return self._step(tokens, state)

    def _compute(self, tokens: Tensor, state: Tensor) -> Tensor:
        x = self.embedding[tokens]
        for layer, (weight, bias) in enumerate(self.layers):
            own = state[:, layer]
            products = torch.addmm(bias, torch.cat([x, own[0].to(self.dtype)], dim=1), weight).float()
            size = self.hidden_size * len(CELLS[self.cell].gates)
            advance(self.cell, products[:, :size], products[:, size:], own, _FUNCTIONS)
            h = own[0].to(self.dtype)
            x = h + x if self.residual and layer > 0 else h
        if self.projection is not None:
            x = x @ self.projection
        return torch.addmm(self.decoder_bias, x, self.decoder).float()

    def _capture(self, tokens: Tensor, state: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        static_tokens, static_state = tokens.clone(), state.clone()
        stream = torch.cuda.Stream()  # warm-up: libraries initialize at the first calls, outside the graph
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._compute(static_tokens, static_state)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._compute(static_tokens, static_state)

        def replay(tokens: Tensor, state: Tensor) -> Tensor:
            static_tokens.copy_(tokens)
            static_state.copy_(state)
            graph.replay()
            state.copy_(static_state)
            return logits.clone()

        return replay


class GPUBatch:
    """Sequences on a GPU, one per row; see `Batch`."""

    def __init__(self, weights: GPUWeights):
        self._weights = weights
        self.count = 0
        shape = (len(CELLS[weights.cell].states), len(weights.layers), _BLOCK, weights.hidden_size)
        self._state = torch.zeros(shape, device=weights.embedding.device)

    def add(self, state: State) -> None:
        """Add a sequence in this state (layers, 1, hidden) as the last row."""
        if self.count == self._state.shape[2]:
            self._state = torch.cat([self._state, torch.zeros_like(self._state[:, :, :_BLOCK])], dim=2)
        self._state[:, :, self.count] = torch.stack(state)[:, :, 0].to(self._state)
        self.count += 1

    def remove(self, row: int) -> None:
        """Remove a sequence; the last row takes its place."""
        self.count -= 1
        self._state[:, :, row] = self._state[:, :, self.count]

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row can be selected several times."""
        selected = self._state[:, :, rows]
        self.count = len(rows)
        blocks = -(-len(rows) // _BLOCK)
        self._state = self._state.new_zeros(*selected.shape[:2], blocks * _BLOCK, selected.shape[3])
        self._state[:, :, : self.count] = selected

    def state(self, row: int) -> State:
        """A copy of the state (layers, 1, hidden) of a row."""
        return tuple(self._state[:, :, row : row + 1].clone())

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""
        padded = tokens.new_zeros(-(-self.count // _BLOCK) * _BLOCK)
        padded[: self.count] = tokens
        logits = [
            self._weights.step(padded[begin : begin + _BLOCK], self._state[:, :, begin : begin + _BLOCK])
            for begin in range(0, len(padded), _BLOCK)
        ]
        return torch.cat(logits)[: self.count]


def _candidate_apart(sigmoids: Tensor, candidate: Tensor, position: int) -> Tensor:
    """Grouped rows of a GRU -> [sigmoids, candidate, 0] for position 0, [sigmoids, 0, candidate] for 1.

    The reset gate multiplies only the hidden state's contribution to the candidate. In the one product of
    both maps, the two contributions must not be summed.
    """
    blocks = [candidate, torch.zeros_like(candidate)]
    return torch.cat([sigmoids, *(blocks if position == 0 else reversed(blocks))])
