"""Cuts the token stream into batches for truncated backpropagation through time.

The training text is a ring of N tokens. Of B streams, stream b starts at b·N/B and reads window after
window through the whole ring. So each stream's recurrent state always follows from the text before it, and
the position in the data follows from the number of windows read. N/(B·T) windows of T tokens are one epoch:
by then the streams have together read every token once.

When several texts are mixed, each is a ring of its own, and the streams are divided among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError
from lm.model.direction import Direction


class Windows:
    """Windows over a token stream (tokens,) for `batch_size` streams of `bptt` steps each.

    `parts` are the lengths of the texts in `tokens`, and `mix` the fraction of the streams that reads each of
    them; without `mix`, they are a single ring. Each ring is read in `direction`. Only the streams in `rows`
    are returned; other processes train on the others.

    Raises UserError if there are more streams than tokens.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: int,
        bptt: int,
        eos: int,
        device: torch.device,
        parts: Sequence[int] | None = None,
        mix: Sequence[float] | None = None,
        direction: Direction = Direction.FORWARD,
        rows: slice | None = None,
    ):
        if len(tokens) < batch_size:
            raise UserError(
                f"--batch-size {batch_size} exceeds the {len(tokens):,} tokens of the training text;"
                f" use at most {len(tokens)}."
            )
        self.batch_size, self.bptt, self.eos, self.device = batch_size, bptt, eos, device
        self.direction, self.rows = direction, rows or slice(0, batch_size)
        # A GPU holds the whole text next to the network; for a CPU it stays memory-mapped.
        self.tokens = tokens
        self.on_device = None
        if device.type != "cpu":
            self.on_device = torch.from_numpy(tokens.astype(np.int32)).to(device)
        lengths = np.array(parts if mix else [len(tokens)])
        self.streams = divide_streams(batch_size, mix or (1.0,))
        if any(lengths < self.streams):
            raise UserError(
                f"--batch-size {batch_size} is too large for the mixed texts: the shortest has"
                f" {lengths.min():,} tokens."
            )
        # For each stream (rows, 1): where its ring starts, the length of the ring, its offset in the ring.
        ring = np.repeat(np.arange(len(lengths)), self.streams)
        self.lengths = lengths[ring][self.rows, None]
        self.starts = (np.cumsum(lengths) - lengths)[ring][self.rows, None]
        numbers = np.concatenate([np.arange(n) for n in self.streams])
        first = numbers * lengths[ring] // np.array(self.streams)[ring]
        self.shortest = int((lengths // np.array(self.streams)).min())  # tokens between neighboring streams
        self.offsets = first[self.rows, None] + np.arange(-1, bptt)[None, :]

    @property
    def steps_per_epoch(self) -> float:
        """Windows in which as many tokens are read as the text has."""
        return len(self.tokens) / self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a window, all streams together."""
        return self.batch_size * self.bptt

    def window(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and targets of window number `step`, each (rows, time) int64."""
        offsets = (self.offsets + step * self.bptt) % self.lengths
        positions = self.starts + self.direction.position(offsets, self.lengths)
        if self.on_device is None:
            batch = torch.from_numpy(self.tokens[positions].astype(np.int64))
        else:
            batch = self.on_device[torch.from_numpy(positions).to(self.device)].long()
        inputs, targets = batch[:, :-1], batch[:, 1:]
        # The first token of a ring follows <eos>, not the last token.
        rows, columns = np.nonzero(offsets[:, 1:] == 0)
        if len(rows):
            inputs = inputs.clone()
            inputs[rows, columns] = self.eos
        return inputs, targets

    def position(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to store in addition to the number of windows read: nothing. See `StreamedWindows`."""
        return {}, {}

    def restore(self, position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Do nothing: the position is the number of windows read."""

    def close(self) -> None:
        """Do nothing: no files are being read."""


def divide_streams(streams: int, mix: Sequence[float]) -> list[int]:
    """The number of streams for each text: its fraction in `mix`, rounded, but at least one.

    Raises UserError if there are fewer streams than texts.
    """
    if streams < len(mix):
        raise UserError(f"--batch-size {streams} is too small to mix {len(mix)} texts: use a larger one.")
    exact = np.array(mix) * streams
    counts = np.maximum(np.floor(exact), 1).astype(int)
    while counts.sum() != streams:
        missing = streams - counts.sum()
        error = np.where((counts > 1) | (missing > 0), (exact - counts) * missing, -np.inf)
        counts[error.argmax()] += np.sign(missing)
    return counts.tolist()
