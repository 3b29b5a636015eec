"""Continuous batching: a scheduler that adds and removes sequences between the steps of one batch.

A recurrent state has a fixed size, so a sequence can enter or leave at any step. Each has its own prompt,
sampling settings, seed and constraints, and its text depends on nothing else. Any number of threads may
consume tokens. One of the waiting threads computes for all of them, in small pieces: a chunk of a prompt,
a few masks, a step. What one sequence needs therefore never keeps the others waiting for long.

Tokens are drawn on the host (lm/generation/host_sampling.py) or, a few at a time, on a GPU
(lm/generation/gpu_sampling.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from itertools import repeat

import torch

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.constraints import Constraint, NoRepeat, check_bias
from lm.generation.decoder import PREFILL_CHUNK, Decoder
from lm.generation.gpu_sampling import GROUP, GPUSampling
from lm.generation.host_sampling import HostSampling
from lm.generation.stream import Stream, Token
from lm.model.cells import State

# Seconds between waking the consumers that have tokens, which costs more than a step: at least _BURST, and
# _BURST_PER_CONSUMER for each consumer.
_BURST, _BURST_PER_CONSUMER = 0.005, 0.00125
_SMALL_GROUP = 4  # tokens per stream that a GPU generates at a time while other streams wait for it


class Scheduler:
    """Runs the streams of one decoder. `suppressed` tokens are never generated."""

    def __init__(self, decoder: Decoder, vocab_size: int, suppressed: Sequence[int] = ()):
        self._decoder, self._vocab_size = decoder, vocab_size
        self._suppressed = torch.zeros(vocab_size)
        self._suppressed[list(suppressed)] = -torch.inf
        self._host = HostSampling(decoder, self._suppressed)
        self._gpu: GPUSampling | None = None  # created for the first stream
        # The lock protects what follows and is never held during a computation. It is reentrant because the
        # garbage collector may close an abandoned `tokens` generator at any time, even while it is held.
        self._lock = threading.RLock()
        self._waiting: deque[Stream] = deque()  # prompts not read yet
        self._consumers: set[_Consumer] = set()
        self._idle: dict[_Consumer, None] = {}  # in order: those that wait while another consumer computes
        self._computing = False

    def __reduce__(self) -> tuple[type[Scheduler], tuple[Decoder, int, list[int]]]:
        """For copies and pickles: the streams are not part of them."""
        suppressed = self._suppressed.isneginf().nonzero().flatten().tolist()
        return Scheduler, (self._decoder, self._vocab_size, suppressed)

    def stream(
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
        past: Sequence[int] | None = None,
    ) -> Stream:
        """A stream that continues `prompt` by up to `limit` tokens. It starts when `tokens` is consumed.

        Args:
            prompt: at least one token, to be read in `state`, by default the initial one.
            alternatives: the number of most likely tokens to report with each token.
            bias: numbers added to the logits of tokens.
            keep_states: whether to report the state before each token.
            past: the text so far, for penalties and n-gram limits; by default the prompt.

        Raises UserError if `prompt` or `bias` has a token that does not exist.
        """
        check_bias(bias or {}, self._vocab_size)
        if not 0 <= min(prompt) <= max(prompt) < self._vocab_size:
            raise UserError(f"the token ids of a prompt must be between 0 and {self._vocab_size - 1}.")
        past = prompt if past is None else past
        if size := sampling.no_repeat_ngram:
            constraints = [*constraints, NoRepeat(self._vocab_size, size, past)]
        state = self._decoder.initial_state() if state is None else state
        return Stream(
            prompt, state, sampling, seed, limit, alternatives, bias or {}, constraints, keep_states, past
        )

    @property
    def running(self) -> Sequence[Stream]:
        """The streams that have not ended, except those whose prompts wait to be read."""
        with self._lock:
            waiting = set(self._waiting)
            streams = [stream for consumer in list(self._consumers) for stream in consumer.streams]
        return [stream for stream in streams if not stream.ended and stream not in waiting]

    def tokens(self, *streams: Stream) -> Generator[tuple[int, Token]]:
        """The tokens of one or more streams as they are generated, each with the index of its stream.

        Closing the generator ends the streams. Raises UserError if the settings exclude every token, and
        whatever else prevented a stream from being generated.
        """
        consumer = _Consumer(streams)
        try:
            with self._lock:
                self._consumers.add(consumer)
                # First, so that a short prompt need not wait for a chunk of each long one.
                self._waiting.extendleft(reversed(streams))
            active = dict(enumerate(streams))
            while active:
                for index, stream in list(active.items()):
                    while stream.ready:
                        yield from zip(repeat(index), stream.ready.popleft(), strict=False)
                    if stream.ended and not stream.ready:
                        if stream.error:
                            raise stream.error
                        del active[index]
                if active:
                    consumer.streams = tuple(active.values())
                    self._wait(consumer)
        finally:
            for stream in streams:
                stream.end()
            with self._lock:
                self._consumers.discard(consumer)
                self._idle.pop(consumer, None)  # after an interruption
                self._pass_on()

    def _wait(self, consumer: _Consumer) -> None:
        """Wait until the consumer may have been served: compute for all, unless another consumer does."""
        compute = False
        try:
            with self._lock:
                compute = not self._computing
                if compute:
                    self._computing = True
                else:
                    consumer.wake.clear()
                    self._idle[consumer] = None
            if compute:
                self._compute(consumer)
            else:
                consumer.wake.wait()
        finally:
            if compute:
                with self._lock:
                    self._computing = False
                    self._wake()
                    self._pass_on()

    def _wake(self) -> None:
        """Wake the consumers that have been served. The caller holds the lock."""
        for consumer in list(self._idle):
            if consumer.served:
                self._idle.pop(consumer, None)
                consumer.wake.set()

    def _pass_on(self) -> None:
        """If nobody is computing, wake a waiting consumer to take over. The caller holds the lock and is
        leaving."""
        if not self._computing and (idle := list(self._idle)):
            self._idle.pop(idle[0], None)
            idle[0].wake.set()

    @torch.inference_mode()
    def _compute(self, consumer: _Consumer) -> None:
        """Compute for all until this consumer has been served; if there are others, for a little longer."""
        until = self._end_of_burst()
        while not consumer.served or (len(self._consumers) > 1 and time.perf_counter() < until):
            self._advance()
            if time.perf_counter() >= until and not consumer.served:
                with self._lock:
                    self._wake()
                until = self._end_of_burst()

    def _end_of_burst(self) -> float:
        return time.perf_counter() + max(_BURST, _BURST_PER_CONSUMER * len(self._consumers))

    def _advance(self) -> None:
        """Read a chunk of a waiting prompt, then generate a token of each stream, or a few on a GPU."""
        has_read = False
        try:
            while self._waiting and not has_read:  # streams with nothing to read start together
                stream = self._waiting.popleft()
                if not stream.ended:
                    has_read = bool(stream.prompt.unread)
                    self._read(stream)
            if self._gpu:
                self._gpu.advance(_SMALL_GROUP if self._waiting or self._host.streams else GROUP)
            self._host.advance()
        except Exception as error:
            self._fail(error)
        except BaseException:
            self._fail(UserError("the generation was interrupted."))
            raise

    def _read(self, stream: Stream) -> None:
        """Read a chunk of a prompt; when all is read, start the stream."""
        prompt = stream.prompt
        try:
            if prompt.unread:
                chunk = torch.tensor(prompt.unread[:PREFILL_CHUNK])
                prompt.state = self._decoder.prefill(chunk, prompt.state)
                del prompt.unread[:PREFILL_CHUNK]
            if prompt.unread:
                self._waiting.append(stream)  # after the others
            else:
                stream.state = prompt.state
                self._sampling_of(stream).add(stream)
        except Exception as error:  # of this stream only
            stream.fail(error)

    def _fail(self, error: Exception) -> None:
        """End the running streams after an error that is not of one stream only. Others can still start."""
        for stream in self.running:
            stream.fail(error)
        self._host, self._gpu = HostSampling(self._decoder, self._suppressed), None

    def _sampling_of(self, stream: Stream) -> HostSampling | GPUSampling:
        """Where the tokens of a stream are drawn."""
        weights = self._decoder.sampling_weights
        if weights is None or not GPUSampling.accepts(stream):
            return self._host
        if self._gpu is None:
            self._gpu = GPUSampling(weights, self._suppressed)
        return self._gpu


class _Consumer:
    """A `tokens` generator: the streams that have not ended yet, and an event to wait for."""

    def __init__(self, streams: Sequence[Stream]):
        self.streams, self.wake = streams, threading.Event()

    @property
    def served(self) -> bool:
        """Whether a stream has tokens or has ended."""
        return any(stream.ready or stream.ended for stream in self.streams)
