"""How the token stream is cut into batches for truncated back-propagation through time.

The training text is a ring of N tokens. Stream b of B starts at b·N/B and reads on, window after
window, through the whole ring, so each stream's recurrent state is always that of the text before
it and the place in the data follows from the number of windows read alone. N/(B·T) windows of T
tokens make one epoch: together the streams have then seen every token once.

Several texts that are to be mixed are a ring each, and the streams are shared out among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError


class Windows:
    """Windows over a token stream (tokens,) for `batch_size` streams of `bptt` steps each.

    `parts` are the lengths of the texts that the tokens consist of and `mix` the share of the
    streams that each of them gets; without a mix they are one ring. With `backward` each ring is
    read from its last token to its first. Of all streams only `rows` are read here: the others are
    read by other processes.
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
        backward: bool = False,
        rows: slice | None = None,
    ):
        if len(tokens) < batch_size:
            raise UserError(
                f"--batch-size {batch_size} is more than the {len(tokens):,} tokens of the training"
                f" text; the largest that fits is {len(tokens)}."
            )
        self.batch_size, self.bptt, self.eos, self.device = batch_size, bptt, eos, device
        self.backward, self.rows = backward, rows or slice(0, batch_size)
        # On a GPU the whole text lies beside the network; on a CPU it stays mapped from disk.
        self.tokens = tokens
        self.on_device = None
        if device.type != "cpu":
            self.on_device = torch.from_numpy(tokens.astype(np.int32)).to(device)
        lengths = np.array(parts if mix else [len(tokens)])
        self.streams = share_out(batch_size, mix or (1.0,))
        if any(lengths < self.streams):
            raise UserError(
                f"--batch-size {batch_size} is more than the mixed texts have tokens: the shortest"
                f" of them has {lengths.min():,}."
            )
        # For each stream (rows, 1): where its ring begins, how long it is, and its place in it.
        of = np.repeat(np.arange(len(lengths)), self.streams)
        self.lengths = lengths[of][self.rows, None]
        self.begins = (np.cumsum(lengths) - lengths)[of][self.rows, None]
        numbers = np.concatenate([np.arange(n) for n in self.streams])
        starts = numbers * lengths[of] // np.array(self.streams)[of]
        self.shortest = int((lengths // np.array(self.streams)).min())  # tokens from a stream to the next
        self.offsets = starts[self.rows, None] + np.arange(-1, bptt)[None, :]

    @property
    def steps_per_epoch(self) -> float:
        """Windows in which as many tokens are read as the text has."""
        return len(self.tokens) / self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one window of all streams."""
        return self.batch_size * self.bptt

    def window(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and the targets, each (rows, time) int64, of window number `step`."""
        inside = (self.offsets + step * self.bptt) % self.lengths
        places = self.begins + (self.lengths - 1 - inside if self.backward else inside)
        if self.on_device is None:
            batch = torch.from_numpy(self.tokens[places].astype(np.int64))
        else:
            batch = self.on_device[torch.from_numpy(places).to(self.device)].long()
        inputs, targets = batch[:, :-1], batch[:, 1:]
        # A ring's first token follows not its last one but a document's end.
        rows, columns = np.nonzero(inside[:, 1:] == 0)
        if len(rows):
            inputs = inputs.clone()
            inputs[rows, columns] = self.eos
        return inputs, targets

    def place(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What has to be kept beside the number of windows read: nothing."""
        return {}, {}

    def restore(self, place: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Nothing; see `place`."""

    def close(self) -> None:
        """Nothing."""


def share_out(streams: int, mix: Sequence[float]) -> list[int]:
    """How many of the streams each text gets: its share, rounded, but at least one. Raises
    UserError if there are fewer streams than texts."""
    if streams < len(mix):
        raise UserError(f"--batch-size {streams} is too small to mix {len(mix)} texts: name at least that.")
    exact = np.array(mix) * streams
    counts = np.maximum(np.floor(exact), 1).astype(int)
    while counts.sum() != streams:
        missing = streams - counts.sum()
        error = np.where((counts > 1) | (missing > 0), (exact - counts) * missing, -np.inf)
        counts[error.argmax()] += np.sign(missing)
    return counts.tolist()
