"""Find the parts of a text that are copied verbatim from a training text."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Protocol

BREAK = "\0"  # ends a document or replaces an unknown token; it matches nothing


class Blocks(Protocol):
    """A training text in pieces that overlap, such as a list of strings. `BREAK` separates documents."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...


def find_copied(
    text: str, blocks: Blocks, *, length: int = 30, seconds: float = math.inf
) -> tuple[list[tuple[int, int]], float]:
    """Find the parts of `text` made of substrings of `length` characters that occur in one of `blocks`,
    which overlap by `length - 1` characters or more.

    Returns disjoint spans (start, end) in order, and the share of the blocks that could be searched within
    the time limit of `seconds`.
    """
    text = text.replace(BREAK, "\ud800")  # a lone surrogate, which no block contains
    # Cut a block into chunks: every `length` characters in a row contain a whole chunk of this size. So only
    # the windows around chunks that occur in the text have to be compared, and such chunks are rare.
    size = (length + 1) // 2
    chunks = {text[start : start + size] for start in range(len(text) - size + 1)}
    windows = {text[start : start + length] for start in range(len(text) - length + 1)}
    copied: set[str] = set()
    deadline, searched = time.monotonic() + seconds, 0
    for block in blocks:
        if time.monotonic() >= deadline:
            break
        for chunk in [at for at in range(0, len(block), size) if block[at : at + size] in chunks]:
            around = range(max(chunk + size - length, 0), chunk + 1)
            copied.update(w for start in around if (w := block[start : start + length]) in windows)
        searched += 1

    spans: list[tuple[int, int]] = []
    for start in range(len(text) - length + 1):
        if text[start : start + length] in copied:
            begin = spans.pop()[0] if spans and start <= spans[-1][1] else start
            spans.append((begin, start + length))
    return spans, searched / max(len(blocks), 1)
