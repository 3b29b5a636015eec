"""The loss of each token of a text, given everything before it, computed for parts of the text side by side.

Each part is first read from the zero state. Then it is read again from the last state of the part before it,
until its state equals that of the first reading, which was right from there on. If the last state of a part
has changed, the next part is read once more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lm.evaluation.validation import WINDOW, block_losses
from lm.model.cells import State
from lm.model.device import Precision
from lm.model.inference import Read, decoding, inference
from lm.model.network import RecurrentLM

_LEAST, _MOST = 8192, 192  # tokens in a part, at least; parts, at most
_SECTION = 1024  # tokens between two looks at the state
_ROUNDS = 3  # then parts are read one by one, because their last state depends on the first
_SAME = 2e-6  # largest difference of states that count as equal; relative for values above 1


def token_losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    *,
    precision: Precision = Precision.FP32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """The loss (tokens,) of each of `tokens` (tokens,) in nats, given all tokens before it in reading order.
    The text begins after the token `start`."""
    with torch.inference_mode(), inference(network, precision, independent=False) as read:
        text = _Text(network, tokens, start, precision, read, progress)
        text.read_all()
        return text.losses


class _Text:
    """A text in parts of equal length, and what is known about it so far."""

    def __init__(
        self,
        network: RecurrentLM,
        tokens: np.ndarray,
        start: int,
        precision: Precision,
        read: Read,
        progress: Callable[[float], None],
    ):
        self.losses = np.zeros(len(tokens), np.float64)
        self._direction, self._vocab_size, self._read = network.direction, network.vocab_size, read
        self._decode, self._progress, self._done = decoding(network, precision), progress, 0
        ordered = self._direction.reorder(tokens)
        self._ids = torch.from_numpy(np.concatenate([[start], ordered]).astype(np.int64)).to(network.device)
        self._count = max(1, min(_MOST, len(tokens) // _LEAST))
        self._length = len(tokens) // self._count
        begins = range(0, self._length, _SECTION)
        self._sections = [range(begin, min(begin + _SECTION, self._length)) for begin in begins]
        self._states: list[State] = []  # after each section, (layers, parts, hidden)
        self._tolerance = max(_SAME, 4 * precision.eps)  # rounding alone makes states differ

    def read_all(self) -> None:
        """Compute all losses."""
        every, state = torch.arange(self._count, device=self._ids.device), None
        for section in self._sections:
            state = self._read_section(every, section, state)
            self._states.append(tuple(tensor.clone() for tensor in state))
        outdated = every > 0  # parts that were not read from the last state of the part before them
        for number in itertools.count():
            parts = every[outdated]
            if not len(parts):
                break
            parts = parts[:1] if number >= _ROUNDS else parts
            outdated[parts] = False
            following = self._reread(parts) + 1
            outdated[following[following < self._count]] = True
        last = every[-1:]
        if rest := range(self._length, len(self.losses) - (self._count - 1) * self._length):
            self._read_section(last, rest, _of_rows(self._states[-1], last))

    def _reread(self, parts: Tensor) -> Tensor:
        """Read parts from the last state of the part before each, up to a known state. Returns those whose
        last state has changed."""
        state = _of_rows(self._states[-1], parts - 1)
        for section, known in zip(self._sections, self._states, strict=True):
            state = self._read_section(parts, section, state)
            changed = self._differ(state, _of_rows(known, parts))
            for whole, own in zip(known, state, strict=True):
                whole[:, parts] = own
            parts, state = parts[changed], _of_rows(state, changed)
            if not len(parts):
                break
        return parts

    def _read_section(self, parts: Tensor, section: range, state: State | None) -> State:
        """Read the tokens of `section` in each of `parts` (parts,). Returns the state after them."""
        for begin in section[::WINDOW]:
            steps = torch.arange(begin, min(begin + WINDOW, section.stop), device=parts.device)
            places = parts * self._length + steps[:, None]  # (time, parts), in reading order
            scored = torch.ones_like(places, dtype=torch.bool)
            losses, after = block_losses(self._decode, self._vocab_size, self._ids[places + 1], scored)
            state = self._read(self._ids[places], state, after)
            offsets = self._direction.position(places.cpu().numpy(), len(self.losses))
            self.losses[offsets] = losses.cpu().numpy()
            self._done += places.numel()
            self._progress(min(self._done / len(self.losses), 1.0))
        assert state is not None
        return state

    def _differ(self, found: State, expected: State) -> Tensor:
        """Which rows (rows,) of two states differ."""
        differences = [
            (ours - theirs).abs().amax(dim=(0, 2)) / theirs.abs().amax(dim=(0, 2)).clamp(min=1.0)
            for ours, theirs in zip(found, expected, strict=True)
        ]
        return torch.stack(differences).amax(dim=0) > self._tolerance


def _of_rows(state: State, rows: Tensor) -> State:
    """The state (layers, rows, hidden) of some rows."""
    return tuple(tensor[:, rows] for tensor in state)
