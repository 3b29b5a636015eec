"""Facts about a text, gathered while its token stream is built: characters, documents, repetitions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.parallel import in_order
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, is_ascii

LISTED = 20  # most and least common characters to store
LONG_TEXT = 1 << 25  # tokens above which fewer spans are compared
_CODE_POINTS = 0x110000
_SPAN = 64  # tokens
_CHUNK = 1 << 20  # tokens


@dataclass(frozen=True)
class Survey:
    """The characters and the longest document of a training text."""

    characters: dict[str, int]  # character -> count
    longest_document: int  # in characters

    def summary(self) -> dict[str, Any]:
        """The facts to store with the token stream, as JSON values."""
        ranked = sorted(self.characters.items(), key=lambda item: (-item[1], item[0]))
        return {
            "longest_document": self.longest_document,
            "distinct_characters": len(ranked),
            "odd_characters": sum(map(_is_odd, self.characters)),
            "commonest": ranked[:LISTED],
            "rarest": ranked[: -LISTED - 1 : -1],
        }


def survey(blocks: Iterable[bytes]) -> Survey:
    """Count the characters of a text that comes in blocks and find its longest document."""
    totals = np.zeros(_CODE_POINTS, np.int64)
    longest = current = 0
    for counts, lengths in in_order(_survey_block, blocks):
        totals[: len(counts)] += counts
        current += lengths[0]
        longest = max(longest, current, *lengths[1:])
        if len(lengths) > 1:
            current = lengths[-1]
    totals[ord(SEPARATOR_CHARACTER)] = 0
    present = np.flatnonzero(totals)
    return Survey({chr(c): int(totals[c]) for c in present}, int(longest))


def _survey_block(block: bytes) -> tuple[np.ndarray, list[int]]:
    """The count of each code point and the length of each document in the block, in characters."""
    codes: np.ndarray
    if is_ascii(block):
        codes, separator = np.frombuffer(block, np.uint8), SEPARATOR[0]
        counts = _count_bytes(block)[:0x80]
    else:
        text = block.decode("utf-8", "surrogateescape").encode("utf-32-le", "surrogatepass")
        codes, separator = np.frombuffer(text, np.uint32), ord(SEPARATOR_CHARACTER)
        counts = np.bincount(codes)
    separators = np.flatnonzero(codes == separator)
    lengths = np.diff(separators, prepend=-1, append=len(codes)) - 1
    return counts, lengths.tolist()


def _count_bytes(block: bytes) -> np.ndarray:
    """The count (256,) of each byte. Counting pairs of bytes takes half the time."""
    pairs = np.bincount(np.frombuffer(block, np.uint16, len(block) // 2), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if len(block) % 2:
        counts[block[-1]] += 1
    return counts


def repeated_fraction(train: np.ndarray, validation: np.ndarray) -> float:
    """The fraction of the validation text that occurs verbatim in the training text, 0 to 1.

    Estimated from the hashes (Karp and Rabin 1987) of spans of 64 tokens at positions selected by the
    tokens themselves (Schleimer, Wilkerson and Aiken 2003): about 1 in 32, or 1 in 256 of a long text.
    """
    rarity = 5 if len(train) < LONG_TEXT else 8
    none = np.zeros(0, np.uint64)
    wanted = np.unique(np.concatenate([none, *_spans(validation, rarity)]))
    if not len(wanted):
        return 0.0
    found = np.zeros(len(wanted), bool)
    for hashes in _spans(train, rarity):
        nearest = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        found[nearest[wanted[nearest] == hashes]] = True
    return float(found.mean())


def _spans(tokens: np.ndarray, rarity: int) -> Iterator[np.ndarray]:
    """The hashes (spans,) uint64 of the selected spans, chunk by chunk."""
    chunks = (tokens[start : start + _CHUNK + _SPAN - 1] for start in range(0, len(tokens), _CHUNK))
    return in_order(lambda chunk: _hash_spans(np.asarray(chunk), rarity), chunks)


def _hash_spans(tokens: np.ndarray, rarity: int) -> np.ndarray:
    if len(tokens) < _SPAN:
        return np.zeros(0, np.uint64)
    # Whether a span is selected depends only on its first four tokens, wherever it occurs.
    first = tokens[: len(tokens) - _SPAN + 4].astype(np.uint16)
    mixed = np.zeros(len(first) - 3, np.uint16)
    for offset in range(4):
        mixed += first[offset : offset + len(mixed)]
        mixed *= np.uint16(0x9E37)
        mixed ^= mixed >> np.uint16(7)
    positions = np.flatnonzero(mixed < 1 << (16 - rarity))
    hashes = np.zeros(len(positions), np.uint64)
    for offset in range(_SPAN):
        hashes = hashes * np.uint64(0x100000001B3) + tokens[positions + offset] + np.uint64(1)
    return hashes


def _is_odd(character: str) -> bool:
    """Whether it is a control, unassigned or private character, which no written language uses."""
    return character not in "\t\n\r\f\0" and unicodedata.category(character) in ("Cc", "Cn", "Co")
