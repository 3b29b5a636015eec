"""Ensemble: several models that generate as one, by the weighted average of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lm.generation.decoder import Batch, Decoder
from lm.model.cells import State


class Ensemble:
    """A decoder whose next token has the probability Σ wᵢ pᵢ. The models share a vocabulary, and the state is
    the concatenation of theirs."""

    sampling_weights = None

    def __init__(self, decoders: Sequence[Decoder], weights: Sequence[float]):
        self._decoders = list(decoders)
        self._weights = [weight / sum(weights) for weight in weights]
        self._parts = [len(decoder.initial_state()) for decoder in decoders]
        self.device = decoders[0].device

    def initial_state(self) -> State:
        """The states before any token."""
        return tuple(part for decoder in self._decoders for part in decoder.initial_state())

    def prefill(self, tokens: Tensor, state: State) -> State:
        """The states after reading up to PREFILL_CHUNK more tokens (time,) int64."""
        pairs = zip(self._decoders, self._split(state), strict=True)
        return tuple(part for decoder, own in pairs for part in decoder.prefill(tokens, own))

    def fingerprint(self) -> str:
        """A string that is equal only for equal models with equal weights."""
        pairs = zip(self._decoders, self._weights, strict=True)
        return " + ".join(f"{weight:.6g} {decoder.fingerprint()}" for decoder, weight in pairs)

    def batch(self) -> Batch:
        """An empty batch."""
        return _EnsembleBatch([decoder.batch() for decoder in self._decoders], self._weights, self._split)

    def _split(self, state: State) -> list[State]:
        """The state of each model."""
        split, begin = [], 0
        for parts in self._parts:
            split.append(state[begin : begin + parts])
            begin += parts
        return split


class _EnsembleBatch:
    """A batch of each model, with the same sequences in the same rows; see `Batch`."""

    def __init__(self, batches: list[Batch], weights: Sequence[float], split: Callable[[State], list[State]]):
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
        logits = torch.stack([batch.step(tokens) for batch in self._batches])
        log_weights = self._log_weights.to(logits)[:, None, None]
        normalizers = logits.logsumexp(dim=-1, keepdim=True)
        logprobs = (logits - normalizers + log_weights).logsumexp(dim=0)
        # On the scale of the models' own logits, to which the repetition penalty applies.
        return logprobs + (log_weights.exp() * normalizers).sum(dim=0)
