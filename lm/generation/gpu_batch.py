"""A decoding step on a GPU: for so few rows, starting a kernel takes longer than what it computes. A
step is therefore recorded once, as a CUDA graph, and started as a whole from then on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lm.model.cells import CELLS, State
from lm.model.network import RecurrentLM

# Kernels for other numbers of rows round differently. A step always computes whole blocks of so many, so
# that a stream writes the same alone and in a batch.
_BLOCK = 64
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class GPUWeights:
    """A network's weights as a step needs them, copied: both matrices of a layer side by side, so that
    it is one product."""

    def __init__(self, network: RecurrentLM, precision: str):
        config, self.dtype = network.config, _DTYPES[precision]
        self.cell, self.residual, self.hidden_size = config.cell, config.residual, config.hidden_size
        self.layers = []
        for layer in range(config.layers):
            w_ih, w_hh, b_ih, b_hh = (weight.detach() for weight in network.recurrent.weights(layer))
            if self.cell == "gru":
                w_ih, b_ih = _proposal_apart(w_ih, 0), _proposal_apart(b_ih, 0)
                w_hh, b_hh = _proposal_apart(w_hh, 1), _proposal_apart(b_hh, 1)
            packed = torch.cat([w_ih, w_hh], dim=1).t().contiguous()
            self.layers.append((packed.to(self.dtype), (b_ih + b_hh).to(self.dtype)))
        self.embedding = network.embedding.weight.detach().to(self.dtype, copy=True)
        projection = network.projection
        self.projection = None if projection is None else projection.weight.detach().t().to(self.dtype)
        self.decoder = network.decoder.weight.detach().t().to(self.dtype, copy=True)
        self.decoder_bias = network.decoder.bias.detach().to(self.dtype, copy=True)
        self._step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A block's tokens (rows,), state (parts, layers, rows, hidden) -> logits, state."""
        if self._step is None:
            self._step = self._recorded(tokens, state) if tokens.device.type == "cuda" else self._compute
        return self._step(tokens, state)

    def _compute(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x, after = self.embedding[tokens], []
        for layer, (weights, bias) in enumerate(self.layers):
            before = tuple(state[:, layer])
            gates = torch.addmm(bias, torch.cat([x, before[0].to(self.dtype)], dim=1), weights)
            after.append(torch.stack(_ADVANCE[self.cell](gates.float(), before)))
            shown = after[-1][0].to(self.dtype)
            x = shown + x if self.residual and layer > 0 else shown
        if self.projection is not None:
            x = x @ self.projection
        return torch.addmm(self.decoder_bias, x, self.decoder).float(), torch.stack(after, dim=1)

    def _recorded(self, tokens: Tensor, state: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        tokens_in, state_in = tokens.clone(), state.clone()
        aside = torch.cuda.Stream()  # libraries set themselves up at the first calls, unrecorded
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._compute(tokens_in, state_in)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits, after = self._compute(tokens_in, state_in)

        def replay(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            tokens_in.copy_(tokens)
            state_in.copy_(state)
            graph.replay()
            return logits.clone(), after.clone()

        return replay


class GPUBatch:
    """Streams side by side, a row each, that can be added and removed between steps."""

    def __init__(self, weights: GPUWeights):
        self._weights = weights
        self.count = 0
        shape = (CELLS[weights.cell].states, len(weights.layers), _BLOCK, weights.hidden_size)
        self._state = torch.zeros(shape, device=weights.embedding.device)

    def add(self, state: State) -> None:
        """A stream in this state (layers, 1, hidden), as the last row."""
        if self.count == self._state.shape[2]:
            self._state = torch.cat([self._state, torch.zeros_like(self._state[:, :, :_BLOCK])], dim=2)
        self._state[:, :, self.count] = torch.stack(state)[:, :, 0].to(self._state)
        self.count += 1

    def remove(self, row: int) -> None:
        """Take a stream out; the last row moves into its place."""
        self.count -= 1
        self._state[:, :, row] = self._state[:, :, self.count]

    def select(self, rows: list[int]) -> None:
        """Go on with these of the rows, in this order; a row may be named several times."""
        taken = self._state[:, :, rows]
        self.count = len(rows)
        blocks = -(-len(rows) // _BLOCK)
        self._state = self._state.new_zeros(*taken.shape[:2], blocks * _BLOCK, taken.shape[3])
        self._state[:, :, : self.count] = taken

    def state(self, row: int) -> State:
        """A copy of a stream's state (layers, 1, hidden)."""
        return tuple(self._state[:, :, row : row + 1].clone())

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""
        padded = tokens.new_zeros(-(-self.count // _BLOCK) * _BLOCK)
        padded[: self.count] = tokens
        logits = []
        for begin in range(0, len(padded), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            out, after = self._weights.step(padded[block], self._state[:, :, block])
            self._state[:, :, block] = after
            logits.append(out)
        return torch.cat(logits)[: self.count]


def _rnn(gates: Tensor, _before: State) -> State:
    return (gates.tanh(),)


def _gru(gates: Tensor, before: State) -> State:
    (h,) = before
    r, z, xn, hn = gates.chunk(4, dim=1)
    n = torch.tanh(xn + r.sigmoid() * hn)
    return (n + z.sigmoid() * (h - n),)


def _lstm(gates: Tensor, before: State) -> State:
    _, c = before
    i, f, g, o = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


_ADVANCE = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


def _proposal_apart(weight: Tensor, place: int) -> Tensor:
    """[r, z, n] -> [r, z, n, 0] for place 0, [r, z, 0, n] for place 1.

    A GRU's reset gate multiplies only the hidden state's part of the proposal, so in the packed
    product the two parts have to come out side by side, not summed.
    """
    hidden = len(weight) // 3
    gates, proposal = weight.split([2 * hidden, hidden])
    parts = [proposal, torch.zeros_like(proposal)]
    return torch.cat([gates, *(parts if place == 0 else reversed(parts))])
