"""Text on its way to tokens: UTF-8 in a file, and between two documents the byte 0xFF, which UTF-8
never contains. So a text of any size is written, counted and read in constant memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lm.tokenization.tokenizer import SEPARATOR, available_cores, safe_cut

BLOCK = 1 << 19  # bytes
_TAIL = 1 << 12  # bytes at the end of a block in which it is cut
T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """The bytes from `start` to `stop` of a file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def blocks(self) -> Iterator[bytes]:
        """The text in pieces of about half a megabyte, cut where no tokenizer joins."""
        if not len(self):
            return
        with open(self.path, "rb") as file, mmap(file.fileno(), self.stop, access=ACCESS_READ) as whole:
            begin = self.start
            while begin < self.stop:
                end = min(begin + BLOCK, self.stop)
                if end < self.stop:
                    tail = whole[max(begin, end - _TAIL) : end]
                    end += safe_cut(tail) - len(tail)
                    # A separator stays with what is before it.
                    end += whole[end] == SEPARATOR[0]
                yield whole[begin:end]
                begin = end

    def cut(self, characters: int) -> tuple[Text, Text]:
        """The first so many characters and the rest, without a separator where they part."""
        place = self.start
        for block in self.blocks():
            here = count_characters(block)
            if here > characters:
                place += _place_of(block, characters)
                break
            characters -= here
            place += len(block)
        with open(self.path, "rb") as file:
            file.seek(max(place - 1, self.start))
            before = place > self.start and file.read(1) == SEPARATOR
            after = place < self.stop and file.read(1) == SEPARATOR
        return Text(self.path, self.start, place - before), Text(self.path, place + after, self.stop)


def write_text(path: Path, pieces: Iterable[bytes], limit: int | None = None) -> Text:
    """Write a text that comes in pieces, at most `limit` characters of it."""
    left = limit
    with open(path, "wb") as file:
        for piece in pieces:
            if left is not None:
                here = count_characters(piece)
                if here > left:
                    file.write(piece[: _place_of(piece, left)].rstrip(SEPARATOR))
                    break
                left -= here
            file.write(piece)
    return Text(path, 0, path.stat().st_size)


def count_characters(text: bytes) -> int:
    """Characters of UTF-8, separators left out."""
    # As signed numbers, the bytes that go on with a character are the ones below -64.
    return int(np.count_nonzero(np.frombuffer(text, np.int8) >= -64)) - text.count(SEPARATOR)


def in_order(function: Callable[[Any], T], blocks: Iterable[Any]) -> Iterator[T]:
    """`function` of each block, computed on all cores, a few blocks ahead and in their order."""
    workers = available_cores()
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque = deque()
        try:
            for block in blocks:
                ahead.append(pool.submit(function, block))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _place_of(text: bytes, number: int) -> int:
    """Where the character of this number begins."""
    raw = np.frombuffer(text, np.int8)
    begins = np.flatnonzero((raw >= -64) & (raw != -1))
    return int(begins[number]) if number < len(begins) else len(text)
