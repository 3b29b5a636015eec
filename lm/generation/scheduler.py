"""Continuous batching: a scheduler that adds and removes sequences between the steps of one batch.

A recurrent state has a fixed size, so a sequence can enter or leave at any step. Each has its own prompt,
sampling settings, seed and constraints, and its text depends on nothing else. No thread owns the loop: a
consumer that waits for a token computes the next step for all. Any number of threads may consume.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.constraints import Constraint, NoRepeat, check_bias, no_token_allowed
from lm.generation.decoder import PREFILL_CHUNK, Batch, Decoder
from lm.generation.samplers import SamplingTensors, apply_penalties, clamp_temperature, sample
from lm.model.cells import State
from lm.model.device import widest_float
from lm.model.loss import top_logprobs

_BURST = 0.005  # seconds for which one consumer computes for all before it wakes the others


class Token(NamedTuple):
    """One generated token."""

    token: int
    logprob: float  # nats, under the model, before any sampler
    alternatives: list[tuple[int, float]]  # the most likely tokens with their log-probabilities
    state: State | None  # the state before reading this token, if requested by `keep_states`


class Stream:
    """A sequence that is being generated. Created by `Scheduler.add`."""

    def __init__(
        self,
        prompt: Sequence[int],
        state: State,
        sampling: SamplingConfig,
        seed: int,
        limit: int,
        alternatives: int,
        bias: Mapping[int, float],
        constraints: Sequence[Constraint],
        keep_states: bool,
        history: Sequence[int],
    ):
        self.sampling, self.limit, self.alternatives = sampling, limit, alternatives
        self.bias, self.constraints, self.keep_states = dict(bias), list(constraints), keep_states
        self.unread, self.last, self.state = list(prompt[:-1]), int(prompt[-1]), state
        self.generated = 0
        self.ended = False
        self.error: UserError | None = None
        self.ready: deque[Token] = deque()
        self.uniform = random.Random(seed).random
        self.constrained = bool(self.constraints or self.bias)
        self.penalized = (sampling.repetition_penalty, sampling.presence_penalty) != (1, 0)
        self.penalized |= sampling.frequency_penalty != 0
        # The tokens to which the penalties apply.
        recent = [*history[-sampling.repetition_window :], *prompt]
        self.window = deque(recent, maxlen=sampling.repetition_window)
        self.counts = Counter(self.window)

    def append(self, token: Token) -> None:
        """Add a generated token."""
        self.generated += 1
        self.last = token.token
        if self.generated >= self.limit:
            self.ended = True
        if self.penalized:
            if len(self.window) == self.window.maxlen:
                self.counts[self.window[0]] -= 1
            self.window.append(token.token)
            self.counts[token.token] += 1
        self.ready.append(token)

    def fail(self, error: UserError) -> None:
        """End with an error, which the consumer will get."""
        self.ended, self.error = True, error

    @property
    def temperature(self) -> float:
        """The temperature of the next token, which can change linearly over the length."""
        t = self.sampling.temperature
        if not isinstance(t, tuple):
            return t
        return clamp_temperature(t[0] + (t[1] - t[0]) * self.generated / max(self.limit - 1, 1))


class Scheduler:
    """Runs the streams of one decoder. `suppressed` tokens are never generated."""

    def __init__(self, decoder: Decoder, vocab_size: int, suppressed: Sequence[int] = ()):
        self._decoder, self._vocab_size = decoder, vocab_size
        self._suppressed = torch.zeros(vocab_size, device=decoder.device)
        self._suppressed[list(suppressed)] = -torch.inf
        self._uniform_dtype = widest_float(decoder.device)
        # Reentrant: inside a step, which holds the lock, the garbage collector may close an abandoned
        # `tokens` generator, which needs the lock too.
        self._lock = threading.RLock()
        self._waiting: deque[Stream] = deque()  # prompts not read yet
        self._running: list[Stream] = []  # in the order of the batch's rows
        self._batch: Batch | None = None
        self._settings: _BatchSettings | None = None  # None: the running streams have changed
        self._consumers = 0

    def add(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        seed: int,
        limit: int,
        *,
        state: State | None = None,
        alternatives: int = 0,
        bias: Mapping[int, float] | None = None,
        constraints: Sequence[Constraint] = (),
        keep_states: bool = False,
        history: Sequence[int] = (),
    ) -> Stream:
        """A stream that continues `prompt` by up to `limit` tokens.

        Args:
            prompt: at least one token, to be read in `state`, by default the initial one.
            alternatives: the number of most likely tokens to report with each token.
            bias: numbers added to the logits of tokens.
            keep_states: whether to report the state before each token.
            history: the tokens before the prompt, for penalties and n-gram limits.

        Raises UserError if `bias` names a token that does not exist.
        """
        check_bias(bias or {}, self._vocab_size)
        if sampling.no_repeat_ngram:
            no_repeat = NoRepeat(self._vocab_size, sampling.no_repeat_ngram, [*history, *prompt])
            constraints = [*constraints, no_repeat]
        state = self._decoder.initial_state() if state is None else state
        stream = Stream(
            prompt, state, sampling, seed, limit, alternatives, bias or {}, constraints, keep_states, history
        )
        with self._lock:
            self._waiting.append(stream)
        return stream

    @property
    def running(self) -> Sequence[Stream]:
        """The streams in the batch."""
        return tuple(self._running)

    def tokens(self, *streams: Stream) -> Generator[tuple[int, Token]]:
        """The tokens of one or more streams as they are generated, each with the index of its stream. Closing
        the generator ends the streams. Raises UserError if the settings exclude every token."""
        with self._lock:
            self._consumers += 1
        try:
            active = dict(enumerate(streams))
            while active:
                for index, stream in list(active.items()):
                    while stream.ready:
                        yield index, stream.ready.popleft()
                    if stream.error:
                        raise stream.error
                    if stream.ended and not stream.ready:
                        del active[index]
                with self._lock:
                    self._drive(list(active.values()))
        finally:
            for stream in streams:
                stream.ended = True
            with self._lock:
                self._consumers -= 1

    @torch.inference_mode()
    def _drive(self, streams: list[Stream]) -> None:
        """Compute steps until one of `streams` has a token or has ended; if other consumers are waiting, for
        a little longer, because waking them costs more than a step."""
        until = time.perf_counter() + _BURST
        while not any(stream.ready or stream.ended for stream in streams) or (
            self._consumers > 1 and time.perf_counter() < until
        ):
            if not streams or all(stream.ended for stream in streams):
                return
            self._advance()

    def _advance(self) -> None:
        """Remove ended streams, read a chunk of a waiting prompt, compute a step."""
        if self._batch is None:
            self._batch = self._decoder.batch()
        for row in reversed(range(len(self._running))):
            if self._running[row].ended:
                self._batch.remove(row)
                last = self._running.pop()
                if row < len(self._running):
                    self._running[row] = last
                self._settings = None
        has_read = False
        while self._waiting and not has_read:  # streams with nothing to read start together
            stream = self._waiting.popleft()
            if not stream.ended:
                has_read = bool(stream.unread)
                self._read(stream, self._batch)
        if self._running:
            self._step(self._running, self._batch)

    def _read(self, stream: Stream, batch: Batch) -> None:
        """Read a chunk of a prompt; when all is read, start the stream."""
        if stream.unread:
            chunk, stream.unread = stream.unread[:PREFILL_CHUNK], stream.unread[PREFILL_CHUNK:]
            stream.state = self._decoder.prefill(torch.tensor(chunk), stream.state)
        if stream.unread:
            self._waiting.append(stream)  # after the others
            return
        batch.add(stream.state)
        self._running.append(stream)
        self._settings = None

    def _step(self, streams: list[Stream], batch: Batch) -> None:
        """Generate one token of each running stream."""
        device = self._decoder.device
        if self._settings is None:
            self._settings = _BatchSettings.of(streams, self._vocab_size, device)
        settings, sampling = self._settings, self._settings.sampling
        if settings.changing_temperature:
            temperatures = torch.tensor([[clamp_temperature(s.temperature)] for s in streams], device=device)
            sampling = dataclasses.replace(sampling, temperature=temperatures)
        logits = batch.step(torch.tensor([stream.last for stream in streams], device=device))

        allowed = logits + self._suppressed
        if settings.penalized:
            allowed = apply_penalties(allowed, self._token_counts(streams), sampling)
        if settings.constrained:
            allowed = _apply_constraints(allowed, streams)
        uniforms = torch.tensor(
            [stream.uniform() for stream in streams], dtype=self._uniform_dtype, device=device
        )
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
        return counts.to(self._decoder.device)


class _BatchSettings(NamedTuple):
    """What the settings of the running streams have in common."""

    sampling: SamplingTensors
    penalized: bool  # any stream
    changing_temperature: bool  # of any stream
    constrained: bool  # any stream
    alternatives: int  # the most of any stream

    @classmethod
    def of(cls, streams: list[Stream], vocab_size: int, device: torch.device) -> _BatchSettings:
        sampling = SamplingTensors.stack([stream.sampling for stream in streams], vocab_size, device)
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
            logits[row, list(stream.bias)] += torch.tensor(
                list(stream.bias.values()), dtype=logits.dtype, device=logits.device
            )
        try:
            for constraint in stream.constraints:
                if not constraint.complete:
                    logits[row].masked_fill_(~constraint.allowed().to(logits.device), -torch.inf)
            if logits[row].max() == -torch.inf:
                raise no_token_allowed(stream.generated)
        except UserError as error:  # of this stream only
            stream.fail(error)
            logits[row] = 0.0
    return logits
