"""Text on its way to tokens: a file of documents in UTF-8 with a SEPARATOR between documents.

Text of any size is written, counted and read in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path

from lm.console.progress import ProgressCallback, with_progress
from lm.tokenization.documents import LONGEST, SEPARATOR, character_offset, chunks, count_characters

BLOCK = 1 << 19  # bytes


@dataclass(frozen=True)
class Text:
    """The bytes from `start` to `stop` of a file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def blocks(self, whole_words: bool = False) -> Iterator[bytes]:
        """The text in blocks of about half a megabyte, split where that changes no token.

        A block in which no word ends is split after a megabyte, unless `whole_words` are wanted.
        """
        if not len(self):
            return
        with open(self.path, "rb") as file, mmap(file.fileno(), self.stop, access=ACCESS_READ) as whole:
            longest = len(self) if whole_words else LONGEST
            yield from chunks(whole, BLOCK, longest, self.start, self.stop)

    def count_characters(self) -> int:
        """The number of characters, separators not included."""
        return sum(map(count_characters, self.blocks()))

    def split_at(self, characters: int) -> tuple[Text, Text]:
        """The first `characters` characters and the rest, without the separator between them."""
        offset = self.start
        for block in self.blocks():
            count = count_characters(block)
            if count > characters:
                offset += character_offset(block, characters)
                break
            characters -= count
            offset += len(block)
        with open(self.path, "rb") as file:
            file.seek(max(offset - 1, self.start))
            before = offset > self.start and file.read(1) == SEPARATOR
            after = offset < self.stop and file.read(1) == SEPARATOR
        return Text(self.path, self.start, offset - before), Text(self.path, offset + after, self.stop)


def save_text(path: Path, pieces: Iterable[bytes], limit: int | None = None) -> Text:
    """Write a text that comes in pieces, but no more than its first `limit` characters."""
    left = limit
    with open(path, "wb") as file:
        for piece in pieces:
            if left is not None:
                count = count_characters(piece)
                if count > left:
                    file.write(piece[: character_offset(piece, left)].rstrip(SEPARATOR))
                    break
                left -= count
            file.write(piece)
    return Text(path, 0, path.stat().st_size)


def blocks_of(texts: list[Text], task: str, progress: ProgressCallback, kind: str = "") -> Iterator[bytes]:
    """The blocks of all texts, for a `kind` of tokenizer, with a separator between texts."""
    each = (text.blocks(whole_words=kind == "word") for text in texts)
    blocks = (b for i, text in enumerate(each) for b in chain([SEPARATOR] * (i > 0), text))
    return with_progress(blocks, task, sum(map(len, texts)), progress)
