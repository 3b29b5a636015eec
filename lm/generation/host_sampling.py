"""Sampling on the host: a batch computes logits, from which the next token of each stream is drawn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lm.generation.constraints import no_token_allowed
from lm.generation.decoder import Batch, Decoder
from lm.generation.samplers import SamplingTensors, apply_penalties, clamp_temperature, sample
from lm.generation.stream import Stream, Token
from lm.model.loss import top_logprobs

_HOST = torch.device("cpu")
_MASK_SECONDS = 0.005  # spent on masks between two steps; one mask may take longer


class HostSampling:
    """Streams that advance together, one token at a time. `suppressed` (vocab,) is added to all logits.

    What the constraints of a stream allow is computed between the steps. Streams for which there was no time
    leave the batch until their turn comes, so that the others need not wait for them. So do streams whose
    consumer does not keep up.
    """

    def __init__(self, decoder: Decoder, suppressed: Tensor):
        self._decoder, self._suppressed, self._vocab_size = decoder, suppressed, len(suppressed)
        self._running: list[Stream] = []  # in the order of the batch's rows
        self._settings: _BatchSettings | None = None  # None: the running streams have changed
        self._waiting: list[Stream] = []  # for their masks or their consumers

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams that are being generated."""
        return (*self._running, *self._waiting)

    def add(self, stream: Stream) -> None:
        """Start a stream whose prompt has been read."""
        if stream.constraints:
            # Starts level with the others. At zero, each new stream would be served first.
            stream.mask_seconds = min((s.mask_seconds for s in self.streams if s.constraints), default=0.0)
            self._waiting.append(stream)
        else:
            self._enter(stream)

    def advance(self) -> None:
        """Remove ended streams and generate one token of each other, except those that have to wait."""
        self._compute_masks()
        self._change_rows()
        if self._running:
            self._step(self._running)

    @cached_property
    def _batch(self) -> Batch:
        return self._decoder.batch()

    def _enter(self, stream: Stream) -> None:
        self._batch.add(stream.state)
        self._running.append(stream)
        self._settings = None

    def _leave(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        self._batch.remove(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last
        self._settings = None

    def _compute_masks(self) -> None:
        """Compute masks for a few milliseconds, beginning with the streams that have used the least time."""
        streams = [stream for stream in self.streams if not stream.is_behind]
        waiting = [stream for stream in streams if stream.constraints and stream.masks is None]
        until = time.perf_counter() + _MASK_SECONDS
        for stream in sorted(waiting, key=lambda stream: stream.mask_seconds):
            start = time.perf_counter()
            if not stream.ended:
                try:
                    stream.masks = [constraint.allowed() for constraint in stream.constraints]
                except Exception as error:  # of this stream only
                    stream.fail(error)
            now = time.perf_counter()
            stream.mask_seconds += now - start
            if now > until:
                break

    def _change_rows(self) -> None:
        """Let streams that have to wait leave the batch, and those that no longer have to wait enter it."""
        for row in reversed(range(len(self._running))):
            stream = self._running[row]
            if stream.ended or _has_to_wait(stream):
                stream.state = self._batch.state(row)
                self._waiting.append(stream)
                self._leave(row)
        waiting, self._waiting = [stream for stream in self._waiting if not stream.ended], []
        for stream in waiting:
            if _has_to_wait(stream):
                self._waiting.append(stream)
            else:
                self._enter(stream)

    def _step(self, streams: list[Stream]) -> None:
        if self._settings is None:
            self._settings = _BatchSettings.of(streams, self._vocab_size)
        settings, sampling = self._settings, self._settings.sampling
        if settings.changing_temperature:
            temperatures = torch.tensor([[clamp_temperature(s.temperature)] for s in streams])
            sampling = dataclasses.replace(sampling, temperature=temperatures)
        last = torch.tensor([stream.last for stream in streams], device=self._decoder.device)
        logits = self._batch.step(last).to(_HOST)

        allowed = logits + self._suppressed
        if sampling.penalized:
            allowed = apply_penalties(allowed, self._token_counts(streams), sampling)
        if settings.constrained:
            allowed = _apply_constraints(allowed, streams)
        uniforms = torch.tensor([stream.random.random() for stream in streams], dtype=torch.float64)
        sampled = sample(allowed, uniforms, sampling)
        logprobs = logits.log_softmax(dim=-1)
        best = top_logprobs(logprobs, settings.alternatives) if settings.alternatives else None
        chosen_logprobs = logprobs.gather(1, sampled[:, None])[:, 0].tolist()
        for row, (stream, token) in enumerate(zip(streams, sampled.tolist(), strict=True)):
            if stream.ended:
                continue
            alternatives = best[row][: stream.alternatives] if best else []
            state = self._batch.state(row) if stream.keep_states else None
            if not stream.constraints or _accept(stream, token):
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
    changing_temperature: bool  # of any stream
    constrained: bool  # any stream
    alternatives: int  # the most of any stream

    @classmethod
    def of(cls, streams: list[Stream], vocab_size: int) -> _BatchSettings:
        sampling = SamplingTensors.stack([stream.sampling for stream in streams], vocab_size, _HOST)
        return cls(
            sampling,
            any(isinstance(stream.sampling.temperature, tuple) for stream in streams),
            any(stream.constrained for stream in streams),
            max(stream.alternatives for stream in streams),
        )


def _has_to_wait(stream: Stream) -> bool:
    """Whether a stream waits for its masks or its consumer."""
    return stream.is_behind or (bool(stream.constraints) and stream.masks is None)


def _accept(stream: Stream, token: int) -> bool:
    """Whether the token continues the stream. A token that is not allowed ends a complete text."""
    masks, stream.masks = stream.masks or [], None
    try:
        for constraint, mask in zip(stream.constraints, masks, strict=True):
            if constraint.complete and not mask[token]:
                stream.ended = True
                return False
        for constraint in stream.constraints:
            constraint.accept(token)
    except Exception as error:  # of this stream only
        stream.fail(error)
        return False
    return True


def _apply_constraints(logits: Tensor, streams: list[Stream]) -> Tensor:
    """Add each stream's bias and exclude, in place, the tokens that its constraints do not allow."""
    for row, stream in enumerate(streams):
        if stream.bias:
            logits[row, list(stream.bias)] += torch.tensor(list(stream.bias.values()), dtype=logits.dtype)
        for constraint, mask in zip(stream.constraints, stream.masks or [], strict=True):
            if not constraint.complete:
                logits[row].masked_fill_(~mask, -torch.inf)
        if stream.constrained and logits[row].max() == -torch.inf:
            stream.fail(no_token_allowed(stream.generated))
            logits[row] = 0.0
    return logits
