"""Many texts at once: a scheduler that adds and removes streams between the steps of one batch.

A recurrent state has a fixed size, so a stream can come or go at any step. Each has its own prompt,
sampler settings, seed and constraints, and what it writes depends on nothing else. Nobody owns the loop:
whoever waits for a token makes the next step, for all. Many threads may do so at once.
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
from lm.generation.constraints import Constraint, NoRepeat, check_bias
from lm.generation.decoder import PREFILL_CHUNK, Batch, Decoder
from lm.generation.samplers import SamplingTensors, apply_penalties, choose, clamp_temperature
from lm.model.cells import State
from lm.model.device import widest_float
from lm.model.loss import top_logprobs

_BURST = 0.005  # seconds that one consumer goes on for all before the others are woken


class Token(NamedTuple):
    """One decoded token."""

    token: int
    logprob: float  # nats, under the model, before any sampler
    alternatives: list[tuple[int, float]]  # the likeliest tokens with their log-probabilities
    state: State | None  # in which the model has read all that stands before this token


class Stream:
    """A text that is being written. Made by `Scheduler.add`."""

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
        self.to_read, self.last, self.state = list(prompt[:-1]), int(prompt[-1]), state
        self.made = 0
        self.ended = False
        self.error: UserError | None = None
        self.ready: deque[Token] = deque()
        self.uniform = random.Random(seed).random
        # Whether every token may come at every step, and whether a penalty asks for what was written.
        self.free = not (self.constraints or self.bias)
        self.counting = (sampling.repetition_penalty, sampling.presence_penalty) != (1, 0)
        self.counting |= sampling.frequency_penalty != 0
        # What the penalties look at.
        written = [*history[-sampling.repetition_window :], *prompt]
        self.window = deque(written, maxlen=sampling.repetition_window)
        self.counts = Counter(self.window)

    def write(self, token: Token) -> None:
        """Add what was decoded."""
        self.made += 1
        self.last = token.token
        if self.made >= self.limit:
            self.ended = True
        if self.counting:
            if len(self.window) == self.window.maxlen:
                self.counts[self.window[0]] -= 1
            self.window.append(token.token)
            self.counts[token.token] += 1
        self.ready.append(token)

    def fail(self, error: UserError) -> None:
        """End with an error, which whoever reads the stream gets."""
        self.ended, self.error = True, error

    @property
    def temperature(self) -> float:
        """That of the next token; it may rise or fall evenly over the length."""
        t = self.sampling.temperature
        if not isinstance(t, tuple):
            return t
        return clamp_temperature(t[0] + (t[1] - t[0]) * self.made / max(self.limit - 1, 1))


class Scheduler:
    """The streams of one decoder. `suppressed` are the tokens that none of them may write."""

    def __init__(self, decoder: Decoder, vocab_size: int, suppressed: Sequence[int] = ()):
        self._decoder, self._vocab_size = decoder, vocab_size
        self._suppressed = torch.zeros(vocab_size, device=decoder.device)
        self._suppressed[list(suppressed)] = -torch.inf
        self._uniform = widest_float(decoder.device)
        # Reentrant: inside a step, which holds the lock, the garbage collector may close an abandoned
        # `tokens` iterator, which needs the lock too.
        self._lock = threading.RLock()
        self._waiting: deque[Stream] = deque()  # those whose prompt is not yet read
        self._running: list[Stream] = []  # in the order of the batch's rows
        self._batch: Batch | None = None
        self._rules: SamplingTensors | None = None
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
        """A stream that goes on after `prompt`, of at least one token, read in `state` or from the
        empty one, for at most `limit` tokens. With `alternatives`, each step tells that many likeliest
        tokens; `bias` is added to the logits of tokens. `history` is what was read before the prompt,
        which the penalties know."""
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

    def tokens(self, *streams: Stream) -> Generator[tuple[int, Token]]:
        """The tokens of one or more streams as they are made, each with its stream's number. Closing
        the iterator ends the streams.

        Raises UserError where the settings leave no token to choose.
        """
        with self._lock:
            self._consumers += 1
        try:
            going_on = dict(enumerate(streams))
            while going_on:
                for number, stream in list(going_on.items()):
                    while stream.ready:
                        yield number, stream.ready.popleft()
                    if stream.error:
                        raise stream.error
                    if stream.ended and not stream.ready:
                        del going_on[number]
                with self._lock:
                    self._drive(list(going_on.values()))
        finally:
            for stream in streams:
                stream.ended = True
            with self._lock:
                self._consumers -= 1

    @torch.inference_mode()
    def _drive(self, streams: list[Stream]) -> None:
        """Go on until one of these has made a token or ended, and where others wait for theirs as well,
        a while longer: waking them costs more than a step."""
        until = time.perf_counter() + _BURST
        while not any(stream.ready or stream.ended for stream in streams) or (
            self._consumers > 1 and time.perf_counter() < until
        ):
            if not streams or all(stream.ended for stream in streams):
                return
            self._advance()

    def _advance(self) -> None:
        """Remove the streams that have ended, read a window of a waiting prompt, make a step."""
        for row in reversed(range(len(self._running))):
            if self._running[row].ended:
                self._batch.remove(row)
                last = self._running.pop()
                if row < len(self._running):
                    self._running[row] = last
                self._rules = None
        reading = False
        while self._waiting and not reading:  # those who have nothing to read begin together
            stream = self._waiting.popleft()
            if not stream.ended:
                reading = bool(stream.to_read)
                self._read(stream)
        if self._running:
            self._step()

    def _read(self, stream: Stream) -> None:
        if stream.to_read:
            window, stream.to_read = stream.to_read[:PREFILL_CHUNK], stream.to_read[PREFILL_CHUNK:]
            stream.state = self._decoder.prefill(torch.tensor(window), stream.state)
        if stream.to_read:
            self._waiting.append(stream)  # behind the others
            return
        self._batch = self._batch or self._decoder.batch()
        self._batch.add(stream.state)
        self._running.append(stream)
        self._rules = None

    def _step(self) -> None:
        streams, device = self._running, self._decoder.device
        if self._rules is None:
            self._rules = SamplingTensors.stack([s.sampling for s in streams], self._vocab_size, device)
            self._ramps = any(isinstance(s.sampling.temperature, tuple) for s in streams)
            self._free = all(stream.free for stream in streams)
            self._most = max(stream.alternatives for stream in streams)
            self._counting = self._rules.counting
        rules = self._rules
        if self._ramps:
            heights = torch.tensor([[clamp_temperature(s.temperature)] for s in streams], device=device)
            rules = dataclasses.replace(rules, temperature=heights)
        logits = self._batch.step(torch.tensor([s.last for s in streams], device=device))

        allowed = logits + self._suppressed
        if self._counting:
            allowed = apply_penalties(allowed, self._counts(), rules)
        if not self._free:
            allowed = self._constrained(allowed)
        uniforms = torch.tensor([s.uniform() for s in streams], dtype=self._uniform, device=device)
        chosen = choose(allowed, uniforms, rules)
        logprobs = logits.log_softmax(dim=-1)
        best = top_logprobs(logprobs, self._most) if self._most else None
        logprobs = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        for row, (stream, token) in enumerate(zip(streams, chosen.tolist(), strict=True)):
            if stream.ended:
                continue
            others = best[row][: stream.alternatives] if best else []
            state = self._batch.state(row) if stream.keep_states else None
            if stream.free or self._fits(stream, token):
                stream.write(Token(token, logprobs[row], others, state))

    def _fits(self, stream: Stream, token: int) -> bool:
        """Whether a token may be written; where the text is whole, one that may not ends it."""
        try:
            for constraint in stream.constraints:
                if constraint.complete and not constraint.allowed()[token]:
                    stream.ended = True
                    return False
            for constraint in stream.constraints:
                constraint.accept(token)
        except UserError as error:  # the others go on
            stream.fail(error)
            return False
        return True

    def _counts(self) -> Tensor:
        counts = torch.zeros(len(self._running), self._vocab_size)
        for row, stream in enumerate(self._running):
            tokens = list(stream.counts)
            counts[row, tokens] = torch.tensor([float(stream.counts[token]) for token in tokens])
        return counts.to(self._decoder.device)

    def _constrained(self, logits: Tensor) -> Tensor:
        """Each stream's own bias and constraints."""
        for row, stream in enumerate(self._running):
            if stream.free or stream.ended:
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
                    raise UserError(
                        f"after {stream.made} tokens there is none left to choose: what is banned, repeated"
                        " or asked for leaves nothing."
                    )
            except UserError as error:
                stream.fail(error)
                logits[row] = 0.0  # the others go on
        return logits
