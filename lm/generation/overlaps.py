"""Overlaps: where the end of a text is the beginning of a string that the next tokens may complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import AnyStr


def overlaps(text: AnyStr, strings: Iterable[AnyStr]) -> Iterator[tuple[AnyStr, int]]:
    """Each of `strings`, none of them empty, with the length of a beginning of it that `text` ends with. A
    string that `text` contains as a whole does not count, and one can have several such beginnings.

    "a sto" and "stop" overlap in 3 characters.
    """
    for string in strings:
        at = text.find(string[:1], max(0, len(text) - len(string) + 1))
        while at >= 0:
            if string.startswith(text[at:]):
                yield string, len(text) - at
            at = text.find(string[:1], at + 1)
