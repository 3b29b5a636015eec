"""A sequence that is being generated: its prompt and settings, and what has been generated so far."""

from __future__ import annotations

import copy
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.generation.constraints import Constraint
from lm.generation.samplers import clamp_temperature
from lm.model.cells import State

BACKLOG = 128  # unread groups of tokens at which a stream pauses


class Token(NamedTuple):
    """One generated token."""

    token: int
    logprob: float  # nats, under the model, before any sampler
    alternatives: Sequence[tuple[int, float]]  # the most likely tokens with their log-probabilities
    state: State | None  # the state before reading this token, if requested by `keep_states`


class Prompt:
    """Tokens to read in a state; streams with the same prompt share it, so that it is read once. The last
    token is left for the first step, which predicts the one after it."""

    def __init__(self, tokens: Sequence[int], state: State):
        self.unread, self.state = list(tokens[:-1]), state


class Stream:
    """A sequence that is being generated. Created by `Scheduler.stream`."""

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
        past: Sequence[int],
    ):
        self.sampling, self.limit, self.alternatives = sampling, limit, alternatives
        self.bias, self.constraints, self.keep_states = dict(bias), list(constraints), keep_states
        self.prompt, self.last = Prompt(prompt, state), int(prompt[-1])
        self.state = state  # where it starts, or resumes after leaving the batch
        self.generated = 0
        self.drawn = 0  # including tokens that a GPU is still computing
        self.ended = False
        self.error: Exception | None = None
        self.ready: deque[Iterable[Token]] = deque()  # groups of generated tokens
        self.random = random.Random(seed)  # of its tokens
        self.constrained = bool(self.constraints or self.bias)
        self.masks: list[Tensor] | None = None  # the tokens that each constraint allows next, once computed
        self.mask_seconds = 0.0  # spent on computing them
        self.penalized = sampling.penalized
        # The tokens to which the penalties apply.
        self.window = deque(past[-sampling.repetition_window :], maxlen=sampling.repetition_window)
        self.counts = Counter(self.window)

    def fork(self, seed: int) -> Stream:
        """Another stream with the same prompt, which is read only once for both. Called before either has
        started."""
        other = copy.copy(self)
        other.constraints = [constraint.fork() for constraint in self.constraints]
        other.random = random.Random(seed)
        other.ready, other.window, other.counts = deque(), self.window.copy(), self.counts.copy()
        return other

    def append(self, token: Token) -> None:
        """Add a generated token."""
        self.last = token.token
        if self.penalized:
            if len(self.window) == self.window.maxlen:
                self.counts[self.window[0]] -= 1
            self.window.append(token.token)
            self.counts[token.token] += 1
        self.extend(1, (token,))

    def extend(self, count: int, tokens: Iterable[Token]) -> None:
        """Add `count` generated tokens. The caller keeps track of the penalty window."""
        self.generated += count
        self.ready.append(tokens)
        if self.generated >= self.limit:
            self.ended = True  # last: a consumer that sees it and finds no tokens leaves

    def end(self) -> None:
        """Generate no more, whatever is being computed. Called from any thread; a consumer that waits for
        tokens notices soon."""
        self.ended = True

    def fail(self, error: Exception) -> None:
        """End with an error, which the consumer will get."""
        self.error = error
        self.ended = True  # last, as in `extend`

    @property
    def is_behind(self) -> bool:
        """Whether generation should pause until its consumer has read more tokens."""
        return len(self.ready) >= BACKLOG

    @property
    def temperature(self) -> float:
        """The temperature of the next token."""
        return self.temperature_at(self.generated)

    def temperature_at(self, position: int) -> float:
        """The temperature of the token at this position, which can change linearly over the length."""
        t = self.sampling.temperature
        if not isinstance(t, tuple):
            return t
        return clamp_temperature(t[0] + (t[1] - t[0]) * position / max(self.limit - 1, 1))
