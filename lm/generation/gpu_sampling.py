"""Sampling on a GPU: each step is computed there as a whole, from the last token of each stream to the next.

The host sends the random numbers of a few steps, launches the steps and reads all their tokens at once.
Meanwhile, it passes the tokens of the previous steps to their streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.generation.gpu_batch import BLOCK, TRIAL, GPUWeights
from lm.generation.gpu_draw import DrawArguments, Window, draw_with_torch
from lm.generation.samplers import SETTING_DTYPES, SamplingTensors, clamp_temperature
from lm.generation.stream import Stream, Token
from lm.model.cuda_graph import Compute

GROUP = 32  # steps that are launched together, at most: a few milliseconds
_LONGEST_WINDOW = 2**14  # tokens
_BELOW_ONE = 1 - 1e-11  # probabilities sum to 1 only up to rounding
_KINDS = 8  # captured steps that a block keeps
_new_token = partial(tuple.__new__, Token)  # of an iterable, twice as fast as calling `Token`
_NOBODY = SamplingConfig(temperature=1.0)  # the settings of a row without a stream


class GPUSampling:
    """Streams whose tokens are drawn on the GPU, in blocks of rows. `suppressed` (vocab,) is added to all
    logits."""

    def __init__(self, weights: GPUWeights, suppressed: Tensor):
        self._weights, self._suppressed = weights, suppressed.to(weights.device)
        self._blocks: list[_Block] = []
        self._starting: list[Stream] = []

    @staticmethod
    def accepts(stream: Stream) -> bool:
        """Whether the stream needs neither logits nor states on the host, nor a huge penalty window."""
        return not stream.constrained and not stream.keep_states and _window(stream) <= _LONGEST_WINDOW

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams whose tokens are being drawn, and those that start with the next step."""
        return [*(stream for block in self._blocks for stream in block.streams if stream), *self._starting]

    def add(self, stream: Stream) -> None:
        """Start a stream whose prompt has been read."""
        self._starting.append(stream)

    def advance(self, most: int) -> None:
        """Launch up to `most` steps. Then add the tokens of the steps that the last call launched to their
        streams."""
        results = [result for block in self._blocks if (result := block.wait())]
        try:
            for block in self._blocks:
                block.release_rows()
            while self._starting:
                stream = self._starting.pop(0)
                try:
                    self._place(stream)
                except Exception as error:  # such as: no memory for another block
                    stream.fail(error)
            for block in self._blocks:
                block.start()
            steps = min(most, _steps(self.streams))
            for block in self._blocks:
                block.launch(steps)
        finally:  # even if the GPU has no memory left for more
            for result in results:
                result.hand_out()

    def _place(self, stream: Stream) -> None:
        """Put a stream into the first free row."""
        block = next((block for block in self._blocks if None in block.streams), None)
        if block is None:
            block = _Block(self._weights, self._suppressed)
            self._blocks.append(block)
        block.add(stream)


def _steps(streams: Sequence[Stream]) -> int:
    """The number of steps to launch. It grows with the texts, so that first tokens arrive at once. A stream
    that needs fewer steps ignores the results of the others."""
    if not streams:
        return 0
    fewest, longest = min(s.drawn for s in streams), max(s.limit - s.drawn for s in streams)
    return min(GROUP, max(fewest, 1), longest)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`. Sizes rounded up to it rarely change, and every
    change discards the captured steps."""
    return 2 ** (number - 1).bit_length()


def _window(stream: Stream) -> int:
    """The number of tokens that the penalties of a stream can look at; 1 if it has none."""
    window, most = stream.sampling.repetition_window, len(stream.window) + stream.limit
    return min(window, most) if stream.penalized else 1


class _Results(NamedTuple):
    """The results of a group of steps on a block."""

    streams: Sequence[Stream | None]  # by row
    tokens: list[list[int]]  # by row and step, as are the others
    logprobs: list[list[float]]
    best_tokens: Sequence[list[list[int]]] = ()  # empty if no stream asked for alternatives
    best_logprobs: Sequence[list[list[float]]] = ()

    def hand_out(self) -> None:
        """Add the tokens to their streams. Those after the end of a stream are ignored."""
        for row, stream in enumerate(self.streams):
            if stream and not stream.ended:
                count = min(len(self.tokens[row]), stream.limit - stream.generated)
                stream.extend(count, self._of_row(row, count, stream.alternatives))

    def _of_row(self, row: int, count: int, alternatives: int) -> Iterator[Token]:
        """The first tokens of a row. They are created when they are consumed: thousands of objects at once
        would keep the garbage collector busy."""
        best: Iterator[Sequence[tuple[int, float]]] = repeat(())
        if alternatives:
            pairs = zip(self.best_tokens[row], self.best_logprobs[row], strict=True)
            best = (list(zip(*pair, strict=True))[:alternatives] for pair in pairs)
        values = zip(self.tokens[row][:count], self.logprobs[row], best, repeat(None), strict=False)
        return map(_new_token, values)


class _Block:
    """A fixed number of rows and the captured steps on them. A stream keeps its row until it ends."""

    def __init__(self, weights: GPUWeights, suppressed: Tensor):
        device = weights.device
        self._weights = weights
        self._draw = weights.kernels.draw if weights.kernels else draw_with_torch
        self.streams: list[Stream | None] = [None] * BLOCK
        self._new: list[int] = []  # rows of streams that start with the next step
        self._changed = False  # since the last launch: which streams there are
        self._launched = 0  # steps whose results have not been read
        self._kinds: dict[tuple[str, ...], Compute] = {}  # captured steps, by what they compute
        self._step: Compute | None = None
        self._alternatives = 0
        # Blocks run next to each other, because one alone cannot keep a GPU busy.
        self._queue = torch.cuda.Stream(device) if device.type == "cuda" else None
        with torch.cuda.stream(self._queue):
            self._state = weights.empty_block()
            self._window = Window(1, BLOCK, weights.vocab_size, device)
            self._settings = _settings(device)
            self._arguments = DrawArguments.create(GROUP, BLOCK, suppressed, self._settings)
            self._temperatures = 2 * self._arguments.uniforms.float()  # by step and row, if they change
            self._best_tokens = self._arguments.tokens[..., None]
            self._best_logprobs = self._arguments.logprobs[..., None]

    def add(self, stream: Stream) -> None:
        """Put a stream into the first free row."""
        row = self.streams.index(None)
        self.streams[row], self._changed = stream, True
        self._new.append(row)

    def start(self) -> None:
        """Send the states of the streams that were added."""
        rows, self._new = self._new, []
        streams = [stream for row in rows if (stream := self.streams[row])]
        if not streams:
            return
        try:
            if self._queue:
                reading = torch.cuda.current_stream(self._queue.device)  # of the prompts
                self._queue.wait_stream(reading)
            with torch.cuda.stream(self._queue):
                self._send_states(rows, streams)
        except Exception as error:  # such as: no memory for longer windows
            for stream in streams:
                stream.fail(error)

    def _send_states(self, rows: Sequence[int], streams: Sequence[Stream]) -> None:
        places = torch.tensor(rows, device=self._state.device)
        states = [torch.cat(part, dim=1) for part in zip(*(stream.state for stream in streams), strict=True)]
        self._state.index_copy_(2, places, torch.stack(states).to(self._state))
        last = torch.tensor([stream.last for stream in streams], device=places.device)
        self._arguments.last.index_copy_(0, places, last)
        for row, stream in zip(rows, streams, strict=True):
            if stream.penalized:
                if (size := _window(stream)) > len(self._window.ring):
                    self._window = self._window.enlarged(_power_of_two(size))
                    self._kinds.clear()
                self._window.fill(row, list(stream.window)[-size:], size)
        most = min(max(stream.alternatives for stream in streams), self._weights.vocab_size)
        if most > self._alternatives:
            self._alternatives = min(_power_of_two(most), self._weights.vocab_size)
            self._best_tokens = self._arguments.tokens[..., None].repeat(1, 1, self._alternatives)
            self._best_logprobs = self._arguments.logprobs[..., None].repeat(1, 1, self._alternatives)
            self._kinds.clear()

    def release_rows(self) -> None:
        """Free the rows of streams that have ended or whose last token has been drawn."""
        for row, stream in enumerate(self.streams):
            if stream and (stream.ended or stream.drawn >= stream.limit):
                self.streams[row], self._changed = None, True

    def launch(self, steps: int) -> None:
        """Launch the next steps of all streams, without waiting for the results."""
        if not any(self.streams) or not steps:
            return
        with torch.cuda.stream(self._queue):
            self._arguments.step.zero_()
            if self._changed or self._step is None:
                self._step = self._chosen_step()
                self._changed = False
            self._send_numbers(steps)
            for _ in range(steps):
                self._step()
        for stream in filter(None, self.streams):
            stream.drawn += steps
        self._launched = steps

    def wait(self) -> _Results | None:
        """The results of the launched steps, if there are any."""
        if not self._launched:
            return None
        steps = self._launched
        streams = self._used_rows()
        parts = [self._arguments.tokens, self._arguments.logprobs]
        if any(stream.alternatives for stream in streams if stream):
            parts += [self._best_tokens, self._best_logprobs]
        with torch.cuda.stream(self._queue):
            on_host = [part[:steps].cpu() for part in parts]
        self._launched = 0
        return _Results(streams, *(part[:, : len(streams)].transpose(0, 1).tolist() for part in on_host))

    def _send_numbers(self, steps: int) -> None:
        """Send the random numbers of the next steps, and temperatures that change."""
        streams = self._used_rows()
        self._fill(self._arguments.uniforms, random_numbers(streams, steps).clamp_(max=_BELOW_ONE))
        if self._temperature_changes():
            temperatures = [
                [clamp_temperature(s.temperature_at(s.drawn + step)) if s else 1.0 for step in range(steps)]
                for s in streams
            ]
            self._fill(self._temperatures, torch.tensor(temperatures))

    @staticmethod
    def _fill(table: Tensor, numbers: Tensor) -> None:
        """Copy numbers (rows, steps) to the beginning of a table (step, row)."""
        table[: numbers.shape[1], : numbers.shape[0]] = numbers.t()

    def _used_rows(self) -> Sequence[Stream | None]:
        """The streams by row, without the unused rows at the end."""
        used = next((row for row in reversed(range(BLOCK)) if self.streams[row]), -1) + 1
        return self.streams[:used]

    def _temperature_changes(self) -> bool:
        return any(isinstance(stream.sampling.temperature, tuple) for stream in self.streams if stream)

    def _chosen_step(self) -> Compute:
        """A captured step that computes only what the current streams need."""
        configs = [stream.sampling if stream else _NOBODY for stream in self.streams]
        needed = SamplingTensors.stack(configs, self._weights.vocab_size, torch.device("cpu"))
        settings: dict[str, Any] = {}
        for name, ours in vars(self._settings).items():
            values = getattr(needed, name)
            settings[name] = None if values is None else ours.copy_(values)
        alternatives = any(stream.alternatives for stream in self.streams if stream)
        changes = self._temperature_changes()
        kind = (*(name for name, ours in settings.items() if ours is not None), f"{alternatives} {changes}")
        step = self._kinds.pop(kind, None)
        if step is None:
            if len(self._kinds) == _KINDS:  # the first is the least recently used
                del self._kinds[next(iter(self._kinds))]
            sampling = SamplingTensors(**settings)
            step = self._weights.captured(
                lambda: self._compute(sampling, changes, alternatives), self._trial, self._varying()
            )
        self._kinds[kind] = step
        return step

    def _compute(self, sampling: SamplingTensors, temperature_changes: bool, alternatives: bool) -> Tensor:
        """The next token of each row, (rows,)."""
        arguments = self._arguments._replace(
            sampling=sampling,
            window=self._window if sampling.penalized else None,
            temperatures=self._temperatures if temperature_changes else None,
        )
        logits = self._weights.compute(arguments.last, self._state)
        self._draw(logits, arguments)
        if alternatives:
            best = logits.log_softmax(dim=-1).topk(self._alternatives, dim=-1)
            self._best_tokens.index_copy_(0, arguments.step, best.indices[None])
            self._best_logprobs.index_copy_(0, arguments.step, best.values[None])
        arguments.step.add_(1)
        return arguments.last

    @staticmethod
    def _trial(step: Compute) -> None:
        for _ in range(TRIAL):
            step()

    def _varying(self) -> dict[str, Tensor]:
        """What a step changes."""
        return {
            "state": self._state,
            "last": self._arguments.last,
            "step": self._arguments.step,
            "tokens": self._arguments.tokens,
            "logprobs": self._arguments.logprobs,
            "best_tokens": self._best_tokens,
            "best_logprobs": self._best_logprobs,
            **vars(self._window),
        }


def random_numbers(streams: Sequence[Stream | None], count: int) -> Tensor:
    """The next random numbers of each stream, (streams, count), as `random` returns them one by one."""
    size = 8 * count
    drawn = (s.random.getrandbits(8 * size).to_bytes(size, "little") if s else bytes(size) for s in streams)
    words = np.frombuffer(b"".join(drawn), "<u4").reshape(len(streams), count, 2)
    # A number of `random` has 27 bits of one word and 26 of the next one.
    return torch.from_numpy(((words[..., 0] >> 5) * 2.0**26 + (words[..., 1] >> 6)) * 2.0**-53)


def _settings(device: torch.device) -> SamplingTensors:
    """The settings of all rows."""
    dtypes = {field.name: SETTING_DTYPES.get(field.name, torch.float32) for field in fields(SamplingTensors)}
    return SamplingTensors(
        **{name: torch.zeros(BLOCK, 1, dtype=dtype, device=device) for name, dtype in dtypes.items()}
    )
