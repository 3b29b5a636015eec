"""The direction in which a model reads and writes text."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, Self, TypeVar

import numpy as np
from torch import Tensor


class _Sliceable(Protocol):
    def __getitem__(self, index: slice, /) -> Self: ...


S = TypeVar("S", bound=_Sliceable)
A = TypeVar("A", int, np.ndarray, Tensor)


class Direction(Enum):
    """`forward`: left to right. `backward`: right to left, so that generated text precedes the prompt.

    Text and tokens are stored in text order everywhere. Only where a network reads or generates them
    are they put into its reading order.
    """

    FORWARD = "forward"
    BACKWARD = "backward"

    def reorder(self, sequence: S) -> S:
        """A string, bytes, list or array from text order to reading order, or from reading order to text
        order."""
        return sequence[::-1] if self is Direction.BACKWARD else sequence

    def position(self, offset: A, length: int | A) -> A:
        """The offset in reading order of an offset (an int, an array or a tensor) in text order, in a text of
        this length, or the other way around."""
        return length - 1 - offset if self is Direction.BACKWARD else offset

    def adjacent(self, prompt: S, count: int) -> S:
        """The up to `count` items of a prompt next to the generated text: its last, or first if backward."""
        return prompt[:count] if self is Direction.BACKWARD else prompt[-count:]

    def join(self, prompt: str, generated: str) -> str:
        """A prompt and the text generated after it, or before it if backward."""
        return generated + prompt if self is Direction.BACKWARD else prompt + generated
