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

from lm.console.wording import plural
from lm.errors import UserError
from lm.model.direction import Direction

_PIECE = 1 << 24  # tokens copied to a GPU at a time


class WindowSizes:
    """Windows of `bptt` tokens from `batch_size` streams, of which those in `rows` are returned."""

    batch_size: int
    bptt: int
    rows: slice

    @property
    def row_count(self) -> int:
        """The number of streams that are returned."""
        return self.rows.stop - self.rows.start

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a window, all streams together."""
        return self.batch_size * self.bptt


class Windows(WindowSizes):
    """Windows over a token stream (tokens,) for `batch_size` streams of `bptt` steps each.

    `parts` are the lengths of the texts in `tokens`, and `mix` the fraction of the streams that reads each of
    them; without `mix`, they are a single ring. Each ring is read in `direction`. Only the streams in `rows`
    are returned; other processes train on the others. `on_device` says whether the text is copied to the
    device; by default, it is if that is a GPU and the text fits.

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
        on_device: bool | None = None,
    ):
        if len(tokens) < batch_size:
            raise UserError(
                f"--batch-size {batch_size} exceeds the {plural(len(tokens), 'token')} of the training text;"
                f" use at most {len(tokens)}."
            )
        self.batch_size, self.bptt, self.eos, self.device = batch_size, bptt, eos, device
        self.direction, self.rows = direction, rows or slice(0, batch_size)
        self.tokens = tokens
        # A GPU stores the text next to the network if it fits; a CPU reads the memory-mapped file.
        wanted = device.type != "cpu" if on_device is None else on_device
        self._text = _copied(tokens, device) if wanted else None
        self.on_device = self._text is not None
        self.shrunk = False  # fewer or shorter than usual, because the text is short
        lengths = np.array(parts if mix else [len(tokens)])
        self.streams = divide_streams(batch_size, mix or (1.0,))
        if any(lengths < self.streams):
            raise UserError(
                f"--batch-size {batch_size} is too large for the mixed texts: the shortest has"
                f" {plural(lengths.min(), 'token')}."
            )
        ring = np.repeat(np.arange(len(lengths)), self.streams)
        numbers = np.concatenate([np.arange(n) for n in self.streams])
        first = numbers * lengths[ring] // np.array(self.streams)[ring]
        # For each stream (rows, 1): the length of its ring, where the ring starts, its offsets in the ring.
        columns = lengths[ring], (np.cumsum(lengths) - lengths)[ring], first
        own = (torch.from_numpy(column[self.rows, None]) for column in columns)
        self._lengths, self._starts, offsets = (c.to(device) if self.on_device else c for c in own)
        self._offsets = offsets + torch.arange(-1, bptt, device=offsets.device)

    @property
    def steps_per_epoch(self) -> float:
        """The tokens of the text divided by those of a step."""
        return len(self.tokens) / self.tokens_per_step

    def window(self, number: int | Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets of window `number`, each (rows, time) int64, on the device.

        If the text is on the device, `number` can be a tensor there, and nothing waits for its value.
        """
        offsets = (self._offsets + number * self.bptt) % self._lengths
        positions = self._starts + self.direction.position(offsets, self._lengths)
        if self._text is None:
            batch = torch.from_numpy(self.tokens[positions.numpy()].astype(np.int64))
        else:
            batch = _read(self._text, positions)
        # The first token of a ring follows <eos>, not the last token.
        inputs = batch[:, :-1].masked_fill(offsets[:, 1:] == 0, self.eos)
        return to_device(inputs, self.device), to_device(batch[:, 1:], self.device)

    def position(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to store in addition to the number of windows read: nothing. See `StreamedWindows`."""
        return {}, {}

    def restore(self, position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Do nothing: the position is the number of windows read."""

    def close(self) -> None:
        """Do nothing: no files are being read."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. The copy is asynchronous (`non_blocking`)."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def _copied(tokens: np.ndarray, device: torch.device) -> Tensor | None:
    """The tokens on the device, in one, two or four bytes each; None if they need more than a quarter of a
    GPU's free memory."""
    pieces = [slice(begin, begin + _PIECE) for begin in range(0, len(tokens), _PIECE)]
    largest = max(int(tokens[piece].max()) for piece in pieces)
    # int16 wraps around, see `_read`: torch lacks most operations on uint16.
    dtype = torch.uint8 if largest < 1 << 8 else torch.int16 if largest < 1 << 16 else torch.int32
    if device.type == "cuda" and len(tokens) * dtype.itemsize > torch.cuda.mem_get_info(device)[0] / 4:
        return None
    text = torch.empty(len(tokens), dtype=dtype, device=device)
    for piece in pieces:  # so that the host holds no second copy of a long text
        text[piece] = torch.from_numpy(tokens[piece].astype(np.int64)).to(dtype)
    return text


def _read(text: Tensor, positions: Tensor) -> Tensor:
    """The tokens at `positions`, int64."""
    tokens = text[positions].long()
    return tokens & 0xFFFF if text.dtype == torch.int16 else tokens


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
