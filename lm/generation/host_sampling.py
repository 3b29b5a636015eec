"""Sampling on the host: a batch computes logits, from which the next token of each stream is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lm.errors import UserError
from lm.generation.constraints import no_token_allowed
from lm.generation.decoder import Batch, Decoder
from lm.generation.samplers import SamplingTensors, apply_penalties, clamp_temperature, sample
from lm.generation.stream import Stream, Token
from lm.model.loss import top_logprobs

_HOST = torch.device("cpu")


class HostSampling:
    """Streams that advance together, one token at a time. `suppressed` (vocab,) is added to all logits."""

    def __init__(self, decoder: Decoder, suppressed: Tensor):
        self._decoder, self._suppressed, self._vocab_size = decoder, suppressed, len(suppressed)
        self._running: list[Stream] = []  # in the order of the batch's rows
        self._batch: Batch | None = None
        self._settings: _BatchSettings | None = None  # None: the running streams have changed

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams in the batch."""
        return tuple(self._running)

    def add(self, stream: Stream) -> None:
        """Start a stream whose prompt has been read."""
        if self._batch is None:
            self._batch = self._decoder.batch()
        self._batch.add(stream.state)
        self._running.append(stream)
        self._settings = None

    def advance(self) -> None:
        """Remove ended streams and generate one token of each other."""
        if self._batch is None:
            return
        for row in reversed(range(len(self._running))):
            if self._running[row].ended:
                self._batch.remove(row)
                last = self._running.pop()
                if row < len(self._running):
                    self._running[row] = last
                self._settings = None
        if self._running:
            self._step(self._running, self._batch)

    def _step(self, streams: list[Stream], batch: Batch) -> None:
        if self._settings is None:
            self._settings = _BatchSettings.of(streams, self._vocab_size)
        settings, sampling = self._settings, self._settings.sampling
        if settings.changing_temperature:
            temperatures = torch.tensor([[clamp_temperature(s.temperature)] for s in streams])
            sampling = dataclasses.replace(sampling, temperature=temperatures)
        last = torch.tensor([stream.last for stream in streams], device=self._decoder.device)
        logits = batch.step(last).to(_HOST)

        allowed = logits + self._suppressed
        if settings.penalized:
            allowed = apply_penalties(allowed, self._token_counts(streams), sampling)
        if settings.constrained:
            allowed = _apply_constraints(allowed, streams)
        uniforms = torch.tensor([stream.uniform() for stream in streams], dtype=torch.float64)
        sampled = sample(allowed, uniforms, sampling)
        logprobs = logits.log_softmax(dim=-1)
        best = top_logprobs(logprobs, settings.alternatives) if settings.alternatives else None
        chosen_logprobs = logprobs.gather(1, sampled[:, None])[:, 0].tolist()
        for row, (stream, token) in enumerate(zip(streams, sampled.tolist(), strict=True)):
            if stream.ended:
                continue
            alternatives = best[row][: stream.alternatives] if best else []
            state = batch.state(row) if stream.keep_states else None
            if not stream.constrained or _accept(stream, token):
                stream.append(Token(token, chosen_logprobs[row], alternatives, state))

    def _token_counts(self, streams: list[Stream]) -> Tensor:
        """How often each token occurs in the penalty window of each stream, (rows, vocab)."""
        counts = torch.zeros(len(streams), self._vocab_size)
        for row, stream in enumerate(streams):
            tokens = list(stream.counts)
            counts[row, tokens] = torch.tensor([float(stream.counts[token]) for token in tokens])
        return counts


class _BatchSettings(NamedTuple):
    """What the settings of the running streams have in common."""

    sampling: SamplingTensors
    penalized: bool  # any stream
    changing_temperature: bool  # of any stream
    constrained: bool  # any stream
    alternatives: int  # the most of any stream

    @classmethod
    def of(cls, streams: list[Stream], vocab_size: int) -> _BatchSettings:
        sampling = SamplingTensors.stack([stream.sampling for stream in streams], vocab_size, _HOST)
        return cls(
            sampling,
            sampling.penalized,
            any(isinstance(stream.sampling.temperature, tuple) for stream in streams),
            any(stream.constrained for stream in streams),
            max(stream.alternatives for stream in streams),
        )


def _accept(stream: Stream, token: int) -> bool:
    """Whether the token continues the stream. A token that is not allowed ends a complete text."""
    try:
        for constraint in stream.constraints:
            if constraint.complete and not constraint.allowed()[token]:
                stream.ended = True
                return False
        for constraint in stream.constraints:
            constraint.accept(token)
    except UserError as error:  # of this stream only
        stream.fail(error)
        return False
    return True


def _apply_constraints(logits: Tensor, streams: list[Stream]) -> Tensor:
    """Add each stream's bias and exclude, in place, the tokens that its constraints do not allow."""
    for row, stream in enumerate(streams):
        if not stream.constrained or stream.ended:
            continue
        if stream.bias:
            logits[row, list(stream.bias)] += torch.tensor(list(stream.bias.values()), dtype=logits.dtype)
        try:
            for constraint in stream.constraints:
                if not constraint.complete:
                    logits[row].masked_fill_(~constraint.allowed(), -torch.inf)
            if logits[row].max() == -torch.inf:
                raise no_token_allowed(stream.generated)
        except UserError as error:  # of this stream only
            stream.fail(error)
            logits[row] = 0.0
    return logits
