"""How the token stream is cut into batches for truncated back-propagation through time.

The training text is a ring of N tokens. Stream b of B starts at b·N/B and reads on, window after
window, through the whole ring, so each stream's recurrent state is always that of the text before
it and the place in the data follows from the number of windows read alone. N/(B·T) windows of T
tokens make one epoch: together the streams have then seen every token once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError


class Windows:
    """Windows over a token stream (tokens,) for `batch_size` streams of `bptt` steps each."""

    def __init__(self, tokens: np.ndarray, batch_size: int, bptt: int, eos: int, device: torch.device):
        if len(tokens) < batch_size:
            raise UserError(
                f"--batch-size {batch_size} is more than the {len(tokens):,} tokens of the training"
                f" text; the largest that fits is {len(tokens)}."
            )
        self.batch_size, self.bptt, self.eos, self.device = batch_size, bptt, eos, device
        # On a GPU the whole text lies beside the network; on a CPU it stays mapped from disk.
        self.tokens = tokens
        self.on_device = None
        if device.type != "cpu":
            self.on_device = torch.from_numpy(tokens.astype(np.int32)).to(device)
        starts = np.arange(batch_size) * len(tokens) // batch_size
        self.offsets = starts[:, None] + np.arange(-1, bptt)[None, :]

    @property
    def steps_per_epoch(self) -> float:
        """Windows in one pass over the text."""
        return len(self.tokens) / self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one window of all streams."""
        return self.batch_size * self.bptt

    def window(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and the targets, each (batch, time) int64, of window number `step`."""
        places = (self.offsets + step * self.bptt) % len(self.tokens)
        if self.on_device is None:
            batch = torch.from_numpy(self.tokens[places].astype(np.int64))
        else:
            batch = self.on_device[torch.from_numpy(places).to(self.device)].long()
        inputs, targets = batch[:, :-1], batch[:, 1:]
        # The text's first token follows not its last one but a document's end.
        rows, columns = np.nonzero(places[:, 1:] == 0)
        if len(rows):
            inputs = inputs.clone()
            inputs[rows, columns] = self.eos
        return inputs, targets
