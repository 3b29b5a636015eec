"""Where tokens and words stand in a text.

A text is UTF-8 with SEPARATOR between documents; a place in it is the number of a byte. Words are
what stands between white space, as `str.split` sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lm.tokenization.tokenizer import PIECE, SEPARATOR, Tokenizer, cut

_END = SEPARATOR.decode("utf-8", "surrogateescape")
_WORDS = re.compile(rf"[^\s{_END}]+")
# A document that ends in a line's end has one token for both.
_WORDS_AND_LINE_ENDS = re.compile(rf"[^\s{_END}]+|\n{_END}?|{_END}")


def token_starts(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> np.ndarray:
    """The place (tokens,) int64 at which each of the `tokens` (tokens,) of `text` begins; they never
    go back. Part of a character begins at its own byte, or with some tokenizers of other makes where
    the character does."""
    if tokenizer.kind == "byte":
        return np.arange(len(text))
    if tokenizer.kind == "char":
        return _character_starts(text)
    if tokenizer.kind == "word":
        return _spans(_WORDS_AND_LINE_ENDS, text)[0]
    parts = {token: tokenizer.bytes_of(token) for token in np.unique(tokens).tolist()}
    parts[tokenizer.eos] = SEPARATOR
    if None not in parts.values() and b"".join(map(parts.__getitem__, tokens.tolist())) == text:
        lengths = np.array([len(parts[token]) for token in tokens.tolist()], np.int64)
        return np.cumsum(lengths) - lengths
    return _reported_starts(tokenizer, text)


@dataclass(frozen=True)
class Words:
    """The words of a text and their places (words,) int64."""

    texts: list[str]
    starts: np.ndarray
    ends: np.ndarray


def words_in(text: bytes) -> Words:
    """All words, in order."""
    starts, ends = _spans(_WORDS, text)
    texts = [text[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return Words(texts, starts, ends)


def words_of_tokens(starts: np.ndarray, size: int, words: Words) -> tuple[np.ndarray, np.ndarray]:
    """For each token that begins at `starts` (tokens,) in a text of `size` bytes the number of its
    word, and whether it is nothing but white space.

    A token belongs to the word of its first character that is not white space; white space alone to
    the word before it, which is -1 where there is none.
    """
    ends = np.maximum(np.append(starts[1:], size), starts + 1)
    word = np.searchsorted(words.ends, starts, side="right")  # the first that ends behind the start
    begins = np.append(words.starts, size)[word]
    space = begins >= ends
    return word - space, space


@dataclass(frozen=True)
class Positions:
    """Places as a person counts them."""

    document: np.ndarray  # from 1
    line: np.ndarray  # of the document, from 1
    column: np.ndarray  # the character of the line, from 1
    offset: np.ndarray  # the character of the document, from 0


def positions(text: bytes, places: np.ndarray) -> Positions:
    """The positions (places,) of the characters at, or around, some `places` (places,)."""
    raw, characters = np.frombuffer(text, np.uint8), _character_starts(text)
    separators, newlines = (np.flatnonzero(raw == byte) for byte in (SEPARATOR[0], ord("\n")))
    # Numbers of the characters, the separators counted too: none of them lies inside a document.
    number = np.searchsorted(characters, places, side="right") - 1
    places = characters[number]
    document = np.searchsorted(separators, places)
    document_starts = np.concatenate([[0], separators + 1])[document]
    line = np.searchsorted(newlines, places)
    line_starts = np.maximum(np.concatenate([[0], newlines + 1])[line], document_starts)
    return Positions(
        document=document + 1,
        line=line - np.searchsorted(newlines, document_starts) + 1,
        column=number - np.searchsorted(characters, line_starts) + 1,
        offset=number - np.searchsorted(characters, document_starts),
    )


def _reported_starts(tokenizer: Tokenizer, text: bytes) -> np.ndarray:
    """The places as `tokenizers` tells them, in characters of each piece that it gets."""
    starts, place = [], 0
    for document in text.split(SEPARATOR):
        for piece in cut(document, PIECE):
            characters = np.append(_character_starts(piece), len(piece))
            encoding = tokenizer.backend.encode(piece.decode(), add_special_tokens=False)
            starts += [place + characters[begin] for begin, _ in encoding.offsets]
            place += len(piece)
        starts.append(place)  # of the <eos> behind it
        place += 1
    # What a tokenizer adds of its own may be said to lie at the beginning.
    return np.maximum.accumulate(np.array(starts[:-1], np.int64))


def _character_starts(text: bytes) -> np.ndarray:
    """The first byte of each character, and each separator."""
    # As signed numbers, the bytes that go on with a character are the ones below -64.
    return np.flatnonzero(np.frombuffer(text, np.int8) >= -64)


def _spans(pattern: re.Pattern[str], text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where all that matches begins and ends, each (matches,) int64."""
    found = pattern.finditer(text.decode("utf-8", "surrogateescape"))
    spans = np.array([match.span() for match in found], np.int64).reshape(-1, 2)
    places = np.append(_character_starts(text), len(text))
    return places[spans[:, 0]], places[spans[:, 1]]
