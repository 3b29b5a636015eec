"""Continuous batching: a scheduler that adds and removes sequences between the steps of one batch.

A recurrent state has a fixed size, so a sequence can enter or leave at any step. Each has its own prompt,
sampling settings, seed and constraints, and its text depends on nothing else. No thread owns the loop: a
consumer that waits for a token computes the next step for all. Any number of threads may consume.

Tokens are drawn on the host (lm/generation/host_sampling.py) or, a few at a time, on a GPU
(lm/generation/gpu_sampling.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence

import torch

from lm.config.schema import SamplingConfig
from lm.generation.constraints import Constraint, NoRepeat, check_bias
from lm.generation.decoder import PREFILL_CHUNK, Decoder
from lm.generation.gpu_sampling import GROUP, GPUSampling
from lm.generation.host_sampling import HostSampling
from lm.generation.stream import Stream, Token
from lm.model.cells import State

_BURST = 0.005  # seconds for which one consumer computes for all before it wakes the others
_SMALL_GROUP = 4  # tokens per stream that a GPU generates at a time while other streams wait for it


class Scheduler:
    """Runs the streams of one decoder. `suppressed` tokens are never generated."""

    def __init__(self, decoder: Decoder, vocab_size: int, suppressed: Sequence[int] = ()):
        self._decoder, self._vocab_size = decoder, vocab_size
        self._suppressed = torch.zeros(vocab_size)
        self._suppressed[list(suppressed)] = -torch.inf
        self._host = HostSampling(decoder, self._suppressed)
        self._gpu: GPUSampling | None = None  # created for the first stream
        # Reentrant: inside a step, which holds the lock, the garbage collector may close an abandoned
        # `tokens` generator, which needs the lock too.
        self._lock = threading.RLock()
        self._waiting: deque[Stream] = deque()  # prompts not read yet
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
        """The streams that are being generated."""
        return (*self._host.streams, *(self._gpu.streams if self._gpu else ()))

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
                        for token in stream.ready.popleft():
                            yield index, token
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
        """Read a chunk of a waiting prompt, then generate a token of each stream, or a few on a GPU."""
        has_read = False
        while self._waiting and not has_read:  # streams with nothing to read start together
            stream = self._waiting.popleft()
            if not stream.ended:
                has_read = bool(stream.unread)
                self._read(stream)
        if self._gpu:
            self._gpu.advance(_SMALL_GROUP if self._waiting or self._host.streams else GROUP)
        self._host.advance()

    def _read(self, stream: Stream) -> None:
        """Read a chunk of a prompt; when all is read, start the stream."""
        if stream.unread:
            chunk, stream.unread = stream.unread[:PREFILL_CHUNK], stream.unread[PREFILL_CHUNK:]
            stream.state = self._decoder.prefill(torch.tensor(chunk), stream.state)
        if stream.unread:
            self._waiting.append(stream)  # after the others
        else:
            self._sampling_of(stream).add(stream)

    def _sampling_of(self, stream: Stream) -> HostSampling | GPUSampling:
        """Where the tokens of a stream are drawn."""
        weights = self._decoder.sampling_weights
        if weights is None or not GPUSampling.accepts(stream):
            return self._host
        if self._gpu is None:
            self._gpu = GPUSampling(weights, self._suppressed)
        return self._gpu
