"""The decoder: from a recurrent state and a token to the next token, again and again.

It knows tokens, not text. `Decoder.step` is the network's forward pass for one step, with the two
matrices of each layer packed side by side into one, so that a step is one matrix product a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.cells import State
from lm.config import SamplingConfig
from lm.generation.samplers import choose
from lm.network import RecurrentLM, autocast, widest_float

# Matrix libraries take other paths, which round differently, for other numbers of rows. Rows are
# therefore always multiplied in blocks of this many, and what one stream writes does not depend
# on how many are written beside it.
BLOCK = 8
_PROMPT_WINDOW = 2048
_UNIFORMS_AT_ONCE = 64


@dataclass(frozen=True)
class Step:
    """One decoded token of each stream."""

    tokens: list[int]
    logprobs: list[float]  # nats, of the chosen token under the model before any sampler
    alternatives: list[list[tuple[int, float]]]  # likeliest tokens with their log-probabilities


class Decoder:
    """A network made ready to be run step by step, many streams at a time.

    The weights are copied: training the network further does not change the decoder. In `dtype`
    bf16 the weights and products are bf16, the LSTM's memory stays float32.
    """

    def __init__(self, network: RecurrentLM, dtype: torch.dtype = torch.float32):
        self.network, self.dtype = network, dtype
        weights = network.recurrent.state_dict()
        cell = network.config.cell
        self._advance = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}[cell]
        self._residual = network.config.residual
        self._layers = []
        for layer in range(network.config.layers):
            w_ih, w_hh, b_ih, b_hh = (
                weights[f"{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            if cell == "gru":
                w_ih, b_ih = _proposal_apart(w_ih, 0), _proposal_apart(b_ih, 0)
                w_hh, b_hh = _proposal_apart(w_hh, 1), _proposal_apart(b_hh, 1)
            packed = torch.cat([w_ih, w_hh], dim=1).t().to(dtype, copy=True).contiguous()
            self._layers.append((packed, (b_ih + b_hh).to(dtype)))
        projection = network.projection
        self._embedding = network.embedding.weight.detach().to(dtype, copy=True)
        self._projection = None if projection is None else projection.weight.detach().to(dtype).t()
        self._decoder = network.decoder.weight.detach().to(dtype, copy=True).t()
        self._decoder_bias = network.decoder.bias.detach().to(dtype, copy=True)

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> State:
        """Read a prompt (time,) int64 in one pass; the state (layers, 1, hidden) after it."""
        was_training = self.network.training
        self.network.eval()
        state: State | None = None
        for window in tokens.split(_PROMPT_WINDOW):
            with autocast(tokens.device, self.dtype):
                _, state = self.network(window[None], state)
        self.network.train(was_training)
        return tuple(part.float() for part in state)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """tokens (streams,), state (layers, streams, hidden) -> logits (streams, vocab), state.

        The number of streams is a multiple of BLOCK.
        """
        parts = [
            self._step_block(block, tuple(part[:, begin : begin + BLOCK] for part in state))
            for begin, block in zip(range(0, len(tokens), BLOCK), tokens.split(BLOCK), strict=True)
        ]
        logits, states = zip(*parts, strict=True)
        return torch.cat(logits), tuple(torch.cat(s, dim=1) for s in zip(*states, strict=True))

    def _step_block(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        x, new = self._embedding[tokens], []
        for layer, (weights, bias) in enumerate(self._layers):
            old = tuple(part[layer] for part in state)
            gates = torch.addmm(bias, torch.cat([x, old[0].to(x.dtype)], dim=1), weights)
            new.append(self._advance(gates.float(), old))
            shown = new[-1][0].to(self.dtype)
            x = shown + x if self._residual and layer > 0 else shown
        if self._projection is not None:
            x = x @ self._projection
        logits = torch.addmm(self._decoder_bias, x, self._decoder).float()
        return logits, tuple(torch.stack(parts) for parts in zip(*new, strict=True))

    @torch.inference_mode()
    def generate(
        self,
        prompt: Tensor,
        seeds: list[int],
        sampling: SamplingConfig,
        max_new_tokens: int,
        banned: list[int],
        alternatives: int = 0,
    ) -> Iterator[Step]:
        """Continue `prompt` (time,) int64 once for every seed, all together.

        What stream i writes depends on the prompt, the sampling and seeds[i] alone. Tokens in
        `banned` are never chosen. With `alternatives`, each step tells that many likeliest tokens.
        """
        count = len(seeds)
        device = prompt.device
        rows = -(-count // BLOCK) * BLOCK
        random = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        # All but the last token are read in one pass, and the last begins the loop.
        state = self.read(prompt[:-1]) if len(prompt) > 1 else self._zeros(device)
        state = tuple(part.expand(-1, rows, -1).contiguous() for part in state)
        tokens = prompt[-1:].expand(rows)
        never = torch.tensor(banned, dtype=torch.long, device=device)
        for index in range(max_new_tokens):
            if index % _UNIFORMS_AT_ONCE == 0:
                uniforms = torch.stack(
                    [torch.rand(_UNIFORMS_AT_ONCE, generator=r, dtype=torch.float64) for r in random],
                    dim=1,
                ).to(device, widest_float(device))
            logits, state = self.step(tokens, state)
            logprobs = logits[:count].log_softmax(dim=-1)
            allowed = logits[:count].index_fill(1, never, -torch.inf)
            chosen = choose(allowed, uniforms[index % _UNIFORMS_AT_ONCE], sampling)
            tokens = torch.cat([chosen, chosen.new_zeros(rows - count)])
            yield Step(
                tokens=chosen.tolist(),
                logprobs=logprobs.gather(1, chosen[:, None])[:, 0].tolist(),
                alternatives=_likeliest(logprobs, alternatives),
            )

    def _zeros(self, device: torch.device) -> State:
        config = self.network.config
        zeros = torch.zeros(config.layers, 1, config.hidden_size, device=device)
        return (zeros, zeros) if config.cell == "lstm" else (zeros,)


def _rnn(gates: Tensor, _old: State) -> State:
    return (gates.tanh(),)


def _gru(gates: Tensor, old: State) -> State:
    (h,) = old
    r, z, xn, hn = gates.chunk(4, dim=1)
    z = z.sigmoid()
    n = torch.tanh(xn + r.sigmoid() * hn)
    return (n + z * (h - n),)


def _lstm(gates: Tensor, old: State) -> State:
    _, c = old
    i, f, g, o = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _proposal_apart(weight: Tensor, place: int) -> Tensor:
    """[r, z, n] -> [r, z, n, 0] for place 0, [r, z, 0, n] for place 1.

    A GRU's reset gate multiplies only the hidden state's part of the proposal, so in the packed
    product the two parts have to come out side by side, not summed.
    """
    hidden = len(weight) // 3
    gates, proposal = weight.split([2 * hidden, hidden])
    parts = [proposal, torch.zeros_like(proposal)]
    return torch.cat([gates, *(parts if place == 0 else reversed(parts))])


def _likeliest(logprobs: Tensor, count: int) -> list[list[tuple[int, float]]]:
    if count == 0:
        return [[] for _ in logprobs]
    best = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    return [
        list(zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
