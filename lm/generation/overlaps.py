"""Overlaps: where the end of a text is the beginning of a string that the next tokens may complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache


def overlaps(text: bytes, strings: Iterable[bytes], missing: int) -> Iterator[tuple[bytes, int]]:
    """Each of `strings`, which are not empty, with each n for which `text` ends with its first n bytes and at
    most `missing` bytes are left. A whole string at the end of `text` does not count.

    "a sto" and "stop" overlap in 3 bytes.
    """
    for string in strings:
        longest, shortest = len(string) - 1, max(len(string) - missing, 1)
        end = max(0, len(text) - shortest + 1)
        at = text.find(string[:1], max(0, len(text) - longest), end)
        while at >= 0:
            if string.startswith(text[at:]):
                yield string, len(text) - at
            at = text.find(string[:1], at + 1, end)


class Search:
    """Finds a string, which is not empty, in a text that grows (Knuth, Morris and Pratt 1977). However often
    the string overlaps the text, a character takes a constant time on average."""

    def __init__(self, string: str):
        self.string, self._shorter = string, _shorter(string)
        self.overlap = 0  # the length of the longest beginning of the string that the text ends with

    def find(self, text: str) -> int:
        """Append to the text. Returns how many of the new characters it takes to the end of the string, or -1
        while it does not occur. Not called again once it occurs."""
        string, shorter, size = self.string, self._shorter, self.overlap
        for count, character in enumerate(text, start=1):
            while size and string[size] != character:
                size = shorter[size]
            size += string[size] == character
            if size == len(string):
                return count
        self.overlap = size
        return -1


@lru_cache(maxsize=256)
def _shorter(string: str) -> list[int]:
    """The failure function of Knuth, Morris and Pratt: for each prefix, by its length, the length of the
    longest shorter prefix with which it ends."""
    shorter, size = [0, 0], 0
    for character in string[1:]:
        while size and string[size] != character:
            size = shorter[size]
        size += string[size] == character
        shorter.append(size)
    return shorter
