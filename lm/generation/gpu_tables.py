"""What a step of generation on a GPU reads and writes besides the state of the network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tables(NamedTuple):
    """What goes into the steps of a group and comes out, (steps, rows); each step uses a row of each."""

    number: Tensor  # of the step, (1,)
    uniforms: Tensor  # random numbers from 0 to 1, float64
    temperatures: Tensor | None  # None if they do not change from step to step
    tokens: Tensor
    logprobs: Tensor

    @classmethod
    def create(cls, steps: int, rows: int, device: torch.device) -> Tables:
        """Tables with various random numbers, for a trial."""
        uniforms = torch.linspace(0.9, 0.1, steps * rows, dtype=torch.float64, device=device)
        return cls(
            number=torch.zeros(1, dtype=torch.long, device=device),
            uniforms=uniforms.view(steps, rows),
            temperatures=None,
            tokens=torch.zeros(steps, rows, dtype=torch.long, device=device),
            logprobs=torch.zeros(steps, rows, device=device),
        )


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
