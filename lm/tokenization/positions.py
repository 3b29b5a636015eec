"""Maps tokens and words to their positions in a text.

A text is UTF-8 with SEPARATOR between documents, and an offset counts its bytes. Words are separated by
whitespace, as in `str.split`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, character_starts
from lm.tokenization.tokenizer import Tokenizer

_WORD = re.compile(rf"[^\s{SEPARATOR_CHARACTER}]+")
# A newline at the end of a document and the separator after it are a single token.
_LINE_END = re.compile(rf"\n{SEPARATOR_CHARACTER}?|{SEPARATOR_CHARACTER}")
_WORD_OR_LINE_END = re.compile(f"{_WORD.pattern}|{_LINE_END.pattern}")


def token_starts(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> np.ndarray:
    """The offset (tokens,) int64 at which each of the `tokens` (tokens,) of `text` starts, never decreasing.

    A token that is part of a character starts at its own byte or, with some external tokenizers, at the
    start of the character.
    """
    if tokenizer.kind == "byte":
        return np.arange(len(text))
    if tokenizer.kind == "char":
        starts = character_starts(text)
        if len(starts) == len(tokens):
            return starts
        # For a vocabulary without "\r", a Windows line end is a single token.
        raw = np.frombuffer(text, np.uint8)
        newline = np.flatnonzero((raw[1:] == ord("\n")) & (raw[:-1] == ord("\r"))) + 1
        return np.setdiff1d(starts, newline, assume_unique=True)
    if tokenizer.kind == "word":
        return _find_all(_WORD_OR_LINE_END, text)[0]
    lengths = _lengths(tokenizer, text, tokens)
    return _reported(tokenizer, text)[0] if lengths is None else np.cumsum(lengths) - lengths


def token_ends(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The offset (tokens,) int64 after each of the `tokens` (tokens,) of `text`, which start at `starts`.

    It is where the next token starts, except for tokenizers that skip whitespace: it is part of no token. The
    end of a token that is part of a character may be that of the character.
    """
    following = np.append(starts[1:], len(text))
    if tokenizer.kind == "word":
        words = words_in(text)
        word = np.searchsorted(words.starts, starts)
        is_word = np.append(words.starts, -1)[word] == starts
        # All other tokens are newlines, possibly with the separator after it.
        return np.where(is_word, np.append(words.ends, 0)[word], starts + 1)
    if tokenizer.kind in ("byte", "char") or _lengths(tokenizer, text, tokens) is not None:
        return following
    return np.maximum(_reported(tokenizer, text)[1], starts)


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


def _lengths(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> np.ndarray | None:
    """The number of bytes (tokens,) int64 of each token, or None if the tokens are not all of the text."""
    if (parts := _parts(tokenizer, tokens)) is None or b"".join(parts) != text:
        return None
    return np.array([len(part) for part in parts], np.int64)


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
        for chunk, encoding in tokenizer.pieces.encoded_chunks(document):
            characters = np.append(character_starts(chunk), len(chunk))  # which it counts in each chunk
            spans += [
                (offset + characters[start], offset + characters[end]) for start, end in encoding.offsets
            ]
            offset += len(chunk)
        spans.append((offset, offset + 1))  # of the <eos> after it
        offset += 1
    starts, ends = np.array(spans[:-1], np.int64).reshape(-1, 2).T
    # A token that the tokenizer inserts may be reported at offset 0.
    return np.maximum.accumulate(starts), ends


def _find_all(pattern: re.Pattern[str], text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The start and end offsets of all matches, each (matches,) int64."""
    matches = pattern.finditer(text.decode("utf-8", "surrogateescape"))
    spans: np.ndarray = np.array([match.span() for match in matches], np.int64).reshape(-1, 2)
    offsets = np.append(character_starts(text), len(text))
    return offsets[spans[:, 0]], offsets[spans[:, 1]]
