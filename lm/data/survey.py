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
_SPANS = {"char": 64, "byte": 64}  # tokens compared, by the kind of tokenizer
_SPAN = 16  # of the other kinds, with longer tokens
_SHORT = 256  # tokens up to which documents are compared as a whole
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


def repeated_fraction(train: np.ndarray, validation: np.ndarray, eos: int, kind: str) -> float:
    """The fraction of the validation text that occurs verbatim in the training text, 0 to 1: in spans of
    tokens, or in whole documents if that is more, because they are shorter than a span.

    Spans are estimated from the hashes (Karp and Rabin 1987) of those at positions selected by the tokens
    themselves (Schleimer, Wilkerson and Aiken 2003): about 1 in 32, or 1 in 256 of a long text. `eos` is
    between documents, and `kind` that of the tokenizer.
    """
    rarity, length = 5 if len(train) < LONG_TEXT else 8, _SPANS.get(kind, _SPAN)
    spans = np.concatenate([*_spans(validation, rarity, length)])
    documents, lengths = map(np.concatenate, zip(*_documents(validation, eos), strict=True))
    each_span = _known(spans, _spans(train, rarity, length))
    each_document = _known(documents, (hashes for hashes, _ in _documents(train, eos)))
    return max(
        float(each_span.mean()) if len(spans) else 0.0, float(lengths[each_document].sum() / len(validation))
    )


def _known(hashes: np.ndarray, others: Iterable[np.ndarray]) -> np.ndarray:
    """Which of the hashes are among the others, (hashes,) bool."""
    distinct, places = np.unique(hashes, return_inverse=True)
    found = np.zeros(len(distinct), bool)
    if len(distinct):
        for part in others:
            nearest = np.searchsorted(distinct, part).clip(max=len(distinct) - 1)
            found[nearest[distinct[nearest] == part]] = True
    return found[places]


def _documents(tokens: np.ndarray, eos: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The hashes (documents,) uint64 and the numbers of tokens of the short documents, chunk by chunk."""

    def of_chunk(start: int) -> tuple[np.ndarray, np.ndarray]:
        # From the token before the chunk to a short document that begins at its end.
        chunk = np.asarray(tokens[max(start - 1, 0) : start + _CHUNK + _SHORT + 1])
        ends = np.flatnonzero(chunk == eos)
        begins = ends + 1 if start else np.concatenate([[0], ends + 1])
        if start + _CHUNK + _SHORT + 1 >= len(tokens):
            ends = np.concatenate([ends, [len(chunk)]])
        begins = begins[begins < _CHUNK + (start > 0)]
        nearest = np.searchsorted(ends, begins)
        begins, nearest = begins[nearest < len(ends)], nearest[nearest < len(ends)]
        lengths = ends[nearest] - begins
        short = (lengths > 0) & (lengths <= _SHORT)
        begins, lengths = begins[short], lengths[short]
        hashes = np.zeros(len(begins), np.uint64)
        longer = np.arange(len(begins))
        for offset in range(_SHORT):
            longer = longer[lengths[longer] > offset]
            if not len(longer):
                break
            hashes[longer] = _extended(hashes[longer], chunk[begins[longer] + offset])
        return hashes, lengths

    return in_order(of_chunk, range(0, len(tokens), _CHUNK))


def _spans(tokens: np.ndarray, rarity: int, length: int) -> Iterator[np.ndarray]:
    """The hashes (spans,) uint64 of the selected spans, chunk by chunk."""
    chunks = (tokens[start : start + _CHUNK + length - 1] for start in range(0, len(tokens), _CHUNK))
    return in_order(lambda chunk: _hash_spans(np.asarray(chunk), rarity, length), chunks)


def _extended(hashes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Hashes with one more token each."""
    return hashes * np.uint64(0x100000001B3) + tokens + np.uint64(1)


def _hash_spans(tokens: np.ndarray, rarity: int, length: int) -> np.ndarray:
    if len(tokens) < length:
        return np.zeros(0, np.uint64)
    # Whether a span is selected depends only on its first four tokens, wherever it occurs.
    first = tokens[: len(tokens) - length + 4].astype(np.uint16)
    mixed = np.zeros(len(first) - 3, np.uint16)
    for offset in range(4):
        mixed += first[offset : offset + len(mixed)]
        mixed *= np.uint16(0x9E37)
        mixed ^= mixed >> np.uint16(7)
    positions = np.flatnonzero(mixed < 1 << (16 - rarity))
    hashes = np.zeros(len(positions), np.uint64)
    for offset in range(length):
        hashes = _extended(hashes, tokens[positions + offset])
    return hashes


def _is_odd(character: str) -> bool:
    """Whether it is a control, unassigned or private character, which no written language uses."""
    return character not in "\t\n\r\f\0" and unicodedata.category(character) in ("Cc", "Cn", "Co")
