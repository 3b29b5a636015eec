"""A generation step on a GPU, captured as a CUDA graph.

For so few rows, launching kernels takes longer than running them: a step is captured once and from then on
launched as a whole.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lm.errors import one_line
from lm.generation.gpu_draw import are_close, kernel_draws_alike
from lm.generation.gpu_kernels import Kernels, has_kernels, kernels_for
from lm.model import cuda_graph
from lm.model.cell_step import AfterLayer, Functions, advance, gate_views, group_gates
from lm.model.cells import CELLS, State
from lm.model.device import Precision, current
from lm.model.network import RecurrentLM

# Kernels chosen for other numbers of rows round differently. A step always computes whole blocks of this many
# rows, so that a sequence is generated identically alone and in a batch.
BLOCK = 64
TRIAL = 3  # steps with which a captured computation proves itself
_FUNCTIONS = Functions(lambda x: x.sigmoid_(), torch.tanh)
_WARNING = threading.Lock()  # acquired once, by the thread that prints the warning


class GPUWeights:
    """The weights of a network as a step uses them, copied: both matrices of a layer side by side, for one
    product."""

    def __init__(self, network: RecurrentLM, precision: str):
        config, self.precision = network.config, Precision(precision)
        self.dtype = self.precision.dtype
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
        self.projection = None if projection is None else _transposed(projection.weight, self.dtype)
        self.decoder = _transposed(network.decoder.weight, self.dtype)
        self.decoder_bias = network.decoder.bias.detach().to(self.dtype, copy=True)
        # `step` is captured on tensors of its own.
        self._lock = threading.Lock()
        self._tokens = torch.zeros(BLOCK, dtype=torch.long, device=self.device)
        self._state = self.empty_block()
        self._run: cuda_graph.Compute | None = None
        self.kernels = self._checked_kernels()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embedding.device

    @property
    def vocab_size(self) -> int:
        """The number of token types."""
        return len(self.decoder_bias)

    def empty_block(self) -> Tensor:
        """The state (parts, layers, rows, hidden) of a block before any token."""
        shape = (len(CELLS[self.cell].states), len(self.layers), BLOCK, self.hidden_size)
        return torch.zeros(shape, device=self.device)

    def compute(self, tokens: Tensor, state: Tensor, after_layer: AfterLayer | None = None) -> Tensor:
        """tokens (rows,) of a block -> logits (rows, vocab); updates state (parts, layers, rows, hidden).
        `after_layer` may change the new state of each layer."""
        if self.kernels and after_layer is None:
            x = self._hidden(self.kernels, tokens, state)
        else:
            x = self._plain_hidden(tokens, state, after_layer)
        if self.projection is not None:
            x = x @ self.projection
        return torch.addmm(self.decoder_bias, x, self.decoder).float()

    def _hidden(self, kernels: Kernels, tokens: Tensor, state: Tensor) -> Tensor:
        """The output of the last layer, (rows, hidden), computed by `kernels`."""
        x, states = kernels.join(self.embedding, tokens, state[0, 0]), state.unbind(1)
        for layer, (weight, bias) in enumerate(self.layers):
            following = states[layer + 1][0] if layer + 1 < len(states) else None
            added = x[:, : self.hidden_size] if self.residual and layer > 0 else None
            x = kernels.advance(x @ weight, bias, states[layer], added, following)
        return x

    def _plain_hidden(self, tokens: Tensor, state: Tensor, after_layer: AfterLayer | None) -> Tensor:
        """The same, computed by operations of torch."""
        x = self.embedding[tokens]
        for layer, (weight, bias) in enumerate(self.layers):
            own = state[:, layer]
            products = torch.addmm(bias, torch.cat([x, own[0].to(self.dtype)], dim=1), weight).float()
            size = self.hidden_size * len(CELLS[self.cell].gates)
            gates = gate_views(self.cell, products[:, :size])
            advance(self.cell, gates, products[:, size:], own, _FUNCTIONS)
            if after_layer is not None:
                after_layer(layer, products, own)
            h = own[0].to(self.dtype)
            x = h + x if self.residual and layer > 0 else h
        return x

    def _checked_kernels(self) -> Kernels | None:
        """The kernels for these weights, or None if the device has none or they fail the check."""
        if not has_kernels(self.device):
            return None
        try:
            kernels = kernels_for(self.device, self.dtype)
            works = self._computes_alike(kernels) and kernel_draws_alike(
                kernels.draw, self.vocab_size, self.device
            )
            reason = "" if works else "their results differ from those of torch"
        except Exception as error:
            reason = one_line(error)
        if reason:
            _warn_once(f"generation does not use its own GPU kernels and is therefore slower: {reason}")
        return None if reason else kernels

    def _computes_alike(self, kernels: Kernels) -> bool:
        """Whether the kernels compute the hidden states that operations of torch compute."""
        tokens = torch.arange(BLOCK, device=self.device) % self.vocab_size
        various = torch.arange(self._state.numel(), dtype=torch.float32, device=self.device).sin_()
        state = various.view(self._state.shape)
        other = state.clone()
        # The kernels run first, so that memory they fail to write cannot contain the expected results yet.
        found = self._hidden(kernels, tokens, state)
        expected = self._plain_hidden(tokens, other, None)
        return are_close(found, expected) and are_close(state, other)

    def step(self, tokens: Tensor, state: Tensor, after_layer: AfterLayer | None = None) -> Tensor:
        """`compute`, launched as a whole unless there is an `after_layer`."""
        if after_layer is not None:
            return self.compute(tokens, state, after_layer)
        with self._lock:  # all batches share the captured tensors
            self._tokens.copy_(tokens)
            self._state.copy_(state)
            if self._run is None:
                seen = torch.zeros(TRIAL, BLOCK, self.vocab_size, device=self.device)
                self._run = self.captured(
                    lambda: self.compute(self._tokens, self._state),
                    lambda run: self._trial(run, seen),
                    {"tokens": self._tokens, "state": self._state, "logits": seen},
                )
            logits = self._run().clone()
            state.copy_(self._state)
        return logits

    def captured(
        self,
        compute: cuda_graph.Compute,
        trial: Callable[[cuda_graph.Compute], None],
        state: Mapping[str, Tensor],
    ) -> cuda_graph.Compute:
        """`compute` as a CUDA graph, or as it is where that is not possible."""
        if self.device.type == "mps":
            return compute
        with current(self.device):
            run, reason = cuda_graph.capture_and_verify(compute, trial, lambda: state, self.precision)
        if reason:
            _warn_once(f"generation does not run as a CUDA graph and is therefore slower: {reason}")
        return run

    def _trial(self, run: cuda_graph.Compute, seen: Tensor) -> None:
        for number in range(TRIAL):
            seen[number] = run()
            self._tokens.add_(1).remainder_(self.vocab_size)


class GPUBatch:
    """Sequences on a GPU, one per row; see `Batch`. `after_layer` may change the new state of each layer."""

    def __init__(self, weights: GPUWeights, after_layer: AfterLayer | None = None):
        self._weights, self._after_layer = weights, after_layer
        self.count = 0
        self._state = weights.empty_block()

    def add(self, state: State) -> None:
        """Add a sequence in this state (layers, 1, hidden) as the last row."""
        if self.count == self._state.shape[2]:
            self._state = torch.cat([self._state, torch.zeros_like(self._state[:, :, :BLOCK])], dim=2)
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
        blocks = -(-len(rows) // BLOCK)
        self._state = self._state.new_zeros(*selected.shape[:2], blocks * BLOCK, selected.shape[3])
        self._state[:, :, : self.count] = selected

    def state(self, row: int) -> State:
        """A copy of the state (layers, 1, hidden) of a row."""
        return tuple(self._state[:, :, row : row + 1].clone())

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""
        padded = tokens.new_zeros(-(-self.count // BLOCK) * BLOCK)
        padded[: self.count] = tokens
        logits = [
            self._weights.step(
                padded[begin : begin + BLOCK], self._state[:, :, begin : begin + BLOCK], self._after_layer
            )
            for begin in range(0, len(padded), BLOCK)
        ]
        return torch.cat(logits)[: self.count]


def _warn_once(message: str) -> None:
    """Print the first warning of this process about the speed of a GPU."""
    if _WARNING.acquire(blocking=False):
        print(f"warning: {message}", file=sys.stderr)


def _transposed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A transposed copy of a matrix."""
    return weight.detach().t().to(dtype, copy=True)


def _candidate_apart(sigmoids: Tensor, candidate: Tensor, position: int) -> Tensor:
    """Grouped rows of a GRU -> [sigmoids, candidate, 0] for position 0, [sigmoids, 0, candidate] for 1.

    The reset gate multiplies only the hidden state's contribution to the candidate. In the one product of
    both maps, the two contributions must not be summed.
    """
    blocks = [candidate, torch.zeros_like(candidate)]
    return torch.cat([sigmoids, *(blocks if position == 0 else reversed(blocks))])
