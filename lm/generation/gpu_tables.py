"""What a step of generation on a GPU reads and writes when it draws tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lm.generation.samplers import SamplingTensors


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
