"""Several models as one: the average of their probabilities, with weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lm.generation.decoder import Batch, Decoder
from lm.model.cells import State


class Ensemble:
    """A decoder whose next token has the probability Σ wᵢ pᵢ; its state is all of theirs, one after the
    other. The models share a vocabulary."""

    def __init__(self, decoders: Sequence[Decoder], weights: Sequence[float]):
        self._decoders = list(decoders)
        self._weights = [weight / sum(weights) for weight in weights]
        self._parts = [len(decoder.initial_state()) for decoder in decoders]
        self.device = decoders[0].device

    def initial_state(self) -> State:
        """The states before anything was read."""
        return tuple(part for decoder in self._decoders for part in decoder.initial_state())

    def prefill(self, tokens: Tensor, state: State) -> State:
        """The states after they have read a window of tokens (time,) more."""
        read = (d.prefill(tokens, s) for d, s in zip(self._decoders, self._split(state), strict=True))
        return tuple(part for state in read for part in state)

    def fingerprint(self) -> str:
        """The same for the same ensemble alone."""
        parts = zip(self._decoders, self._weights, strict=True)
        return " + ".join(f"{weight:.6g} {decoder.fingerprint()}" for decoder, weight in parts)

    def batch(self) -> Batch:
        """A batch without any stream yet."""
        return _Batch([decoder.batch() for decoder in self._decoders], self._weights, self._split)

    def _split(self, state: State) -> list[State]:
        split, begin = [], 0
        for parts in self._parts:
            split.append(state[begin : begin + parts])
            begin += parts
        return split


class _Batch:
    def __init__(self, batches: list[Batch], weights: list[float], split):  # noqa: ANN001
        self._batches, self._split = batches, split
        self._log_weights = torch.tensor(weights).log()

    @property
    def count(self) -> int:
        return self._batches[0].count

    def add(self, state: State) -> None:
        for batch, part in zip(self._batches, self._split(state), strict=True):
            batch.add(part)

    def remove(self, row: int) -> None:
        for batch in self._batches:
            batch.remove(row)

    def select(self, rows: list[int]) -> None:
        for batch in self._batches:
            batch.select(rows)

    def state(self, row: int) -> State:
        return tuple(part for batch in self._batches for part in batch.state(row))

    def step(self, tokens: Tensor) -> Tensor:
        logprobs = torch.stack([batch.step(tokens).log_softmax(dim=-1) for batch in self._batches])
        return (logprobs + self._log_weights.to(logprobs)[:, None, None]).logsumexp(dim=0)
