"""The parts of a scored text, documents or blocks, from which intervals and tests are computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from lm.console.wording import plural
from lm.tokenization.documents import SEPARATOR, count_characters

_BLOCKS = 100  # that a text is cut into at most
_MIN_PARTS = 10  # to estimate anything from them
_MIN_BLOCK_SIZE = 100  # tokens
_MAX_PARTS = 1000  # more documents than this are resampled in groups of neighbors
_RESAMPLES = 4000
_CHUNK = 100  # resamples at a time


@dataclass(frozen=True)
class Parts:
    """A text cut into consecutive parts that are resampled as a whole, because losses of neighboring tokens
    are correlated."""

    text: bytes  # UTF-8 with SEPARATOR between documents
    unit: str  # "document" or "block"
    offsets: np.ndarray  # (parts + 1,) the byte at which each starts, and the end of the text
    documents: int  # in the text

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __str__(self) -> str:
        """'100 blocks', '37 documents', '1,000 groups of documents'."""
        if self.unit == "document" and len(self) < self.documents:
            return f"{plural(len(self), 'group')} of documents"
        return plural(len(self), self.unit)

    @property
    def enough(self) -> bool:
        """Whether there are enough to estimate anything from them."""
        return len(self) >= _MIN_PARTS

    @cached_property
    def sizes(self) -> np.ndarray:
        """The characters and bytes (parts, 2) of each part, without separators."""
        return np.array([size_of(self.text[begin:end]) for begin, end in pairwise(self.offsets.tolist())])

    def borders(self, starts: np.ndarray) -> np.ndarray:
        """The first token (parts + 1,) of each part, of tokens that start at the bytes `starts` (tokens,)."""
        borders: np.ndarray = np.searchsorted(starts, self.offsets)
        borders[0], borders[-1] = 0, len(starts)
        return borders

    def sums(self, starts: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The sum (parts,) of the `values` (tokens,) of the tokens of each part."""
        borders = self.borders(starts)
        sums, full = np.zeros(len(self)), np.diff(borders) > 0
        if full.any():
            sums[full] = np.add.reduceat(values, borders[:-1][full])
        return sums


def size_of(text: bytes) -> tuple[int, int]:
    """The number of characters and bytes, without separators."""
    return count_characters(text), len(text) - text.count(SEPARATOR)


def parts_of(text: bytes, starts: np.ndarray, other: np.ndarray | None = None) -> Parts:
    """The documents of a text whose tokens start at the bytes `starts` (tokens,), if there are enough, or
    blocks with the same number of tokens.

    There are enough if a mean over the documents, weighted by their lengths n, is as certain as that over ten
    documents of equal length: (Σn)² / Σn² ≥ 10 (Kish 1965, Survey Sampling).

    With the tokens `other` (tokens,) of another tokenizer, blocks begin where neither has a token that
    extends across the border. Whitespace between words does not count: some tokens include it, some do not.
    The blocks do not depend on the order of the two.
    """
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == SEPARATOR[0]) + 1
    documents = np.concatenate([[0], ends, [len(text)]])
    lengths = np.diff(documents).astype(float)
    lengths[:-1] -= 1  # the separators
    if lengths.sum() ** 2 >= _MIN_PARTS * max((lengths**2).sum(), 1):
        count = min(len(lengths), _MAX_PARTS)
        borders = np.arange(count + 1) * len(lengths) // count
        return Parts(text, "document", documents[borders], len(lengths))
    fewest = len(starts) if other is None else min(len(starts), len(other))
    count = max(1, min(_BLOCKS, fewest // _MIN_BLOCK_SIZE))
    candidates = starts if other is None else np.union1d(starts, other)
    offsets = candidates[np.arange(1, count) * len(candidates) // count]
    if other is not None:
        offsets = _common_borders(text, offsets, candidates, (starts, other))
    return Parts(text, "block", np.concatenate([[0], offsets, [len(text)]]), len(lengths))


def _common_borders(
    text: bytes, wanted: np.ndarray, candidates: np.ndarray, both: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The first of the `candidates` (bytes,) at or after each of the bytes `wanted` (borders,) that is a
    border of both tokenizers, once."""
    found: list[int] = []
    for offset in wanted.tolist():
        if found and offset <= found[-1]:
            continue
        after = candidates[np.searchsorted(candidates, offset) :]
        border = next((b for b in after if all(_is_border(text, b, of) for of in both)), None)
        if border is None:
            break
        found.append(int(border))
    return np.array(found, np.int64)


def _is_border(text: bytes, offset: int, starts: np.ndarray) -> bool:
    """Whether a character starts at `offset`, and what is between it and the next token is whitespace."""
    if text[offset] & 0xC0 == 0x80:  # inside a character
        return False
    token = np.searchsorted(starts, offset)
    end = starts[token] if token < len(starts) else len(text)
    between = text[offset:end].replace(SEPARATOR, b" ").decode(errors="replace")
    return not between.strip()


def resample(sums: np.ndarray) -> np.ndarray:
    """The totals (resamples, k) of as many parts as there are, drawn again and again with replacement from
    those with `sums` (parts, k): a bootstrap of documents, or of blocks (Künsch 1989, Annals of Statistics
    17; non-overlapping blocks: Carlstein 1986, ibid. 14)."""
    drawn = np.random.default_rng(0).integers(0, len(sums), (_RESAMPLES, len(sums)))
    return np.concatenate([sums[some].sum(axis=1) for some in np.array_split(drawn, _RESAMPLES // _CHUNK)])


def interval_of(values: np.ndarray) -> tuple[float, float]:
    """Where the middle 95% of the `values` (resamples,) are."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
