"""Draws the next token of each row with operations of torch, and checks that a kernel draws the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.generation.samplers import SamplingTensors, apply_penalties, draw_without_waiting

_ROWS = 64  # of the check
_ALIKE = 0.9  # share of rows with the same tokens; rounding rarely changes one
_TOLERANCE = 0.01  # relative; bfloat16 rounds by up to 0.004


class Window:
    """The last tokens of each row, to which penalties apply: a ring of `sizes` (rows,) tokens, of which
    `next` (rows,) is the oldest."""

    def __init__(self, longest: int, rows: int, vocab_size: int, device: torch.device):
        nothing = vocab_size  # a token that does not exist
        self.ring = torch.full((longest, rows), nothing, device=device)
        self.counts = torch.zeros(rows, vocab_size + 1, device=device)
        self.next = torch.zeros(rows, dtype=torch.long, device=device)
        self.sizes = torch.ones(rows, dtype=torch.long, device=device)
        self.one = torch.ones(rows, 1, device=device)
        self.minus_one = -self.one

    def enlarged(self, size: int) -> Window:
        """A copy with space for windows of this size."""
        rows, types = self.counts.shape
        other = Window(size, rows, types - 1, self.ring.device)
        other.ring[: len(self.ring)] = self.ring
        for ours, theirs in ((self.counts, other.counts), (self.next, other.next), (self.sizes, other.sizes)):
            theirs.copy_(ours)
        return other

    def fill(self, row: int, tokens: list[int], size: int) -> None:
        """Set the last tokens of a row, at most `size`."""
        nothing = self.counts.shape[1] - 1
        padded = torch.tensor(tokens + [nothing] * (size - len(tokens)))
        self.ring[:size, row] = padded.to(self.ring)
        self.counts[row] = torch.bincount(padded, minlength=nothing + 1).to(self.counts)
        self.next[row] = len(tokens) % size
        self.sizes[row] = size

    def append(self, tokens: Tensor) -> None:
        """Add a token (rows,) to each row, in place of the oldest."""
        oldest = self.ring.gather(0, self.next[None])
        self.counts.scatter_add_(1, oldest.t(), self.minus_one)
        self.counts.scatter_add_(1, tokens[:, None], self.one)
        self.ring.scatter_(0, self.next[None], tokens[None])
        self.next.add_(1).remainder_(self.sizes)


class DrawArguments(NamedTuple):
    """The arguments of a function that draws the next token of each row, apart from the logits (rows, vocab).

    In the tables (steps, rows), each step of a group uses the row `step`.
    """

    suppressed: Tensor  # (vocab,), added to all logits
    sampling: SamplingTensors
    window: Window | None  # None if no row has a penalty
    step: Tensor  # (1,)
    uniforms: Tensor  # table of random numbers from 0 to 1, float64
    temperatures: Tensor | None  # table; None if they do not change from step to step
    last: Tensor  # (rows,), the last token; here and in the tables below, results are written
    tokens: Tensor
    logprobs: Tensor

    @classmethod
    def create(cls, steps: int, rows: int, suppressed: Tensor, sampling: SamplingTensors) -> DrawArguments:
        """Arguments without penalties, with random numbers for a trial."""
        device = suppressed.device
        uniforms = torch.linspace(0.9, 0.1, steps * rows, dtype=torch.float64, device=device)
        return cls(
            suppressed=suppressed,
            sampling=sampling,
            window=None,
            step=torch.zeros(1, dtype=torch.long, device=device),
            uniforms=uniforms.view(steps, rows),
            temperatures=None,
            last=torch.zeros(rows, dtype=torch.long, device=device),
            tokens=torch.zeros(steps, rows, dtype=torch.long, device=device),
            logprobs=torch.zeros(steps, rows, device=device),
        )


# Draws the next token of each row from logits (rows, vocab).
Draw = Callable[[Tensor, DrawArguments], None]


def draw_with_torch(logits: Tensor, arguments: DrawArguments) -> None:
    """Draw the next token of each row from logits (rows, vocab)."""
    suppressed, sampling, window, step, uniforms, temperatures, last, tokens, logprobs = arguments
    penalized, temperature = logits, sampling.temperature
    if window is not None:
        penalized = apply_penalties(logits, window.counts[:, :-1], sampling)
    if temperatures is not None:
        temperature = temperatures.index_select(0, step).t()
    allowed = torch.addcdiv(suppressed, penalized, temperature)
    drawn = draw_without_waiting(allowed, uniforms.index_select(0, step)[0], sampling)
    tokens.index_copy_(0, step, drawn[None])
    logprobs.index_copy_(0, step, logits.log_softmax(dim=-1).gather(1, drawn[:, None]).t())
    if window is not None:
        window.append(drawn)
    last.copy_(drawn)


@functools.cache  # each sample during training is generated with a new copy of the weights
def kernel_draws_alike(draw: Draw, vocab_size: int, device: torch.device) -> bool:
    """Whether a kernel does what `draw_with_torch` does, with settings off and on."""
    return all(draws_alike(draw, strength, vocab_size, device) for strength in (0.0, 1.0))


def draws_alike(draw: Draw, strength: float, vocab_size: int, device: torch.device) -> bool:
    """Whether `draw` does what `draw_with_torch` does, with all settings at a strength from 0 to 1."""
    found, expected = (_outcome(compute, strength, vocab_size, device) for compute in (draw, draw_with_torch))
    same = (found["tokens"] == expected["tokens"]).all(dim=1)
    return int(same.sum()) >= _ALIKE * _ROWS and all(
        are_close(found[name][same], expected[name][same]) for name in expected
    )


def _outcome(draw: Draw, strength: float, vocab_size: int, device: torch.device) -> dict[str, Tensor]:
    """What `draw` writes in two steps, each with its rows first."""
    configs = [
        SamplingConfig(
            temperature=1.0,
            greedy=strength * (row % 8) > 6,
            top_k=int(strength * (row % (vocab_size + 1))),
            typical_p=1 - 0.2 * strength * (row % 3),
            top_p=1 - 0.3 * strength * (row % 4),
            min_p=0.02 * strength * (row % 5),
            repetition_penalty=1 + strength * (row % 2),
            presence_penalty=0.3 * strength,
            frequency_penalty=-0.2 * strength,
        )
        for row in range(_ROWS)
    ]
    numbers = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(_ROWS, vocab_size, generator=numbers).to(device)
    suppressed = torch.randn(vocab_size, generator=numbers).to(device)
    sampling = SamplingTensors.stack(configs, vocab_size, device)
    arguments, window = DrawArguments.create(2, _ROWS, suppressed, sampling), None
    if strength:
        window = Window(4, _ROWS, vocab_size, device)
        for row in range(_ROWS):
            window.fill(row, [row % vocab_size, 0][: row % 3], 2 + row % 3)
        arguments = arguments._replace(window=window, temperatures=arguments.uniforms.float() + 0.5)
    for _ in range(2):
        draw(logits, arguments)
        arguments.step.add_(1)
    outcome = {"last": arguments.last, "tokens": arguments.tokens.t(), "logprobs": arguments.logprobs.t()}
    if window is not None:
        outcome |= {"counts": window.counts, "ring": window.ring.t(), "next": window.next}
    return outcome


def are_close(found: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by no more than rounding."""
    difference = (found.double() - expected.double()).norm()
    return bool(difference <= _TOLERANCE * expected.double().norm())  # not if there is NaN
