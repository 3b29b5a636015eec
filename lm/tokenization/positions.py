"""Maps tokens and words to their positions in a text.

A text is UTF-8 with SEPARATOR between documents, and an offset counts its bytes. Words are separated by
whitespace, as in `str.split`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, character_starts
from lm.tokenization.tokenizer import Tokenizer

_WORD = re.compile(rf"[^\s{SEPARATOR_CHARACTER}]+")
# A newline at the end of a document and the separator after it are a single token.
_LINE_END = re.compile(rf"\n{SEPARATOR_CHARACTER}?|{SEPARATOR_CHARACTER}")
_WORD_OR_LINE_END = re.compile(f"{_WORD.pattern}|{_LINE_END.pattern}")


def token_starts(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> np.ndarray:
    """The offset (tokens,) int64 at which each of the `tokens` (tokens,) of `text` starts."""
    return byte_spans(tokenizer, text, tokens)[0]


def byte_spans(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The offsets at which each of the `tokens` (tokens,) of `text` starts and ends, each (tokens,) int64.
    Neither ever decreases, and no token is empty or extends into another document.

    A token ends where the next one starts, unless the tokenizer skips whitespace or other characters, which
    then are part of no token. A token that is part of a character has its own bytes or, with some external
    tokenizers, those of the character.
    """
    if tokenizer.kind == "word":
        starts, ends = _find_all(_WORD_OR_LINE_END, text)
        is_word = np.isin(np.frombuffer(text, np.uint8)[starts], (ord("\n"), SEPARATOR[0]), invert=True)
        return starts, np.where(is_word, ends, starts + 1)
    if tokenizer.kind == "byte":
        starts = np.arange(len(text))
    elif tokenizer.kind == "char":
        starts = _character_starts(text, len(tokens))
    elif (parts := _parts(tokenizer, tokens)) is not None and b"".join(parts) == text:
        lengths = np.array([len(part) for part in parts], np.int64)
        starts = np.cumsum(lengths) - lengths
    else:
        return _reported(tokenizer, text)
    return starts, np.append(starts, len(text))[1:]


@dataclass(frozen=True)
class Words:
    """The words of a text and their offsets (words,) int64."""

    texts: list[str]
    starts: np.ndarray
    ends: np.ndarray


def words_in(text: bytes) -> Words:
    """All words of a text, in order."""
    starts, ends = _find_all(_WORD, text)
    texts = [text[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return Words(texts, starts, ends)


def words_of_tokens(starts: np.ndarray, size: int, words: Words) -> tuple[np.ndarray, np.ndarray]:
    """For each token that starts at `starts` (tokens,) in a text of `size` bytes, the index of its word and
    whether it is whitespace only.

    A token belongs to the word of its first character that is not whitespace; a whitespace token belongs to
    the word before it, -1 if there is none.
    """
    ends = np.maximum(np.append(starts[1:], size), starts + 1)
    word = np.searchsorted(words.ends, starts, side="right")  # the first that ends after the start
    word_starts = np.append(words.starts, size)[word]
    space = word_starts >= ends
    return word - space, space


@dataclass(frozen=True)
class Positions:
    """Positions as a text editor counts them."""

    document: np.ndarray  # from 1
    line: np.ndarray  # in the document, from 1
    column: np.ndarray  # of the character in the line, from 1
    offset: np.ndarray  # of the character in the document, from 0


def positions(text: bytes, offsets: np.ndarray) -> Positions:
    """The positions of the characters that contain the bytes at `offsets` (positions,)."""
    raw, characters = np.frombuffer(text, np.uint8), character_starts(text)
    separators, newlines = (np.flatnonzero(raw == byte) for byte in (SEPARATOR[0], ord("\n")))
    # Characters are numbered with the separators, which cancel out within a document.
    number = np.searchsorted(characters, offsets, side="right") - 1
    offsets = characters[number]
    document = np.searchsorted(separators, offsets)
    document_starts = np.concatenate([[0], separators + 1])[document]
    line = np.searchsorted(newlines, offsets)
    line_starts = np.maximum(np.concatenate([[0], newlines + 1])[line], document_starts)
    return Positions(
        document=document + 1,
        line=line - np.searchsorted(newlines, document_starts) + 1,
        column=number - np.searchsorted(characters, line_starts) + 1,
        offset=number - np.searchsorted(characters, document_starts),
    )


def _character_starts(text: bytes, tokens: int) -> np.ndarray:
    """The offset (tokens,) of each token that is a character."""
    starts = character_starts(text)
    if len(starts) == tokens:
        return starts
    # For a vocabulary without "\r", a Windows line end is a single token.
    raw = np.frombuffer(text, np.uint8)
    newline = np.flatnonzero((raw[1:] == ord("\n")) & (raw[:-1] == ord("\r"))) + 1
    return np.setdiff1d(starts, newline, assume_unique=True)


def _parts(tokenizer: Tokenizer, tokens: np.ndarray) -> list[bytes] | None:
    """The bytes of each token, or None if they depend on the tokens around them."""
    part_of: dict[int, bytes] = {}
    for token in np.unique(tokens).tolist():
        part = SEPARATOR if token == tokenizer.eos else tokenizer.bytes_of(token)
        if part is None:
            return None
        part_of[token] = part
    return [part_of[token] for token in tokens.tolist()]


def _reported(tokenizer: Tokenizer, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The offsets at which tokens start and end, each (tokens,) int64, as `tokenizers` reports them."""
    spans: list[tuple[int, int]] = []
    offset = 0
    for document in text.split(SEPARATOR):
        for chunk, encoding in tokenizer.subwords.encoded_chunks(document):
            # It counts the characters of a chunk. A token that the tokenizer inserts may have none.
            starts = offset + np.append(character_starts(chunk), len(chunk))
            spans += [(starts[start], starts[max(end, start + 1)]) for start, end in encoding.offsets]
            offset += len(chunk)
        spans.append((offset, offset + 1))  # of the <eos> after it
        offset += 1
    starts, ends = np.array(spans[:-1], np.int64).reshape(-1, 2).T
    # It may also be reported at offset 0.
    starts, ends = np.maximum.accumulate(starts), np.maximum.accumulate(ends)
    return starts, _after_marks(text, starts, ends)


def _after_marks(text: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The ends (tokens,) of tokens, moved behind accents and the like that belong to no token. `tokenizers`
    reports only the first code point of a character that a normalizer composes, or strips of its accents."""
    raw = np.frombuffer(text, np.uint8)
    borders, border_of_token = np.unique(ends, return_inverse=True)
    next_starts = np.append(starts, len(text))[np.searchsorted(starts, borders)]
    skipped = np.flatnonzero((next_starts > borders) & (raw[borders - 1] != SEPARATOR[0]))
    for border in skipped[raw[borders[skipped]] >= 0x80].tolist():  # no mark is ASCII
        after = text[borders[border] : next_starts[border]].decode()
        borders[border] += len("".join(takewhile(_is_mark, after)).encode())
    return borders[border_of_token]


def _is_mark(character: str) -> bool:
    """Whether a code point is part of the character before it: an accent or another mark, a vowel or final
    consonant of a Hangul syllable, or a halfwidth sound mark of Katakana."""
    is_hangul = "\u1160" <= character <= "\u11ff"
    return unicodedata.category(character)[0] == "M" or is_hangul or character in "\uff9e\uff9f"


def _find_all(pattern: re.Pattern[str], text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The start and end offsets of all matches, each (matches,) int64."""
    matches = pattern.finditer(text.decode("utf-8", "surrogateescape"))
    spans: np.ndarray = np.array([match.span() for match in matches], np.int64).reshape(-1, 2)
    offsets = np.append(character_starts(text), len(text))
    return offsets[spans[:, 0]], offsets[spans[:, 1]]
