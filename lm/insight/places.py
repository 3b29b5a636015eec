"""Where the tokens stand in a text as characters, and what stands around a place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lm.tokenization.documents import character_starts
from lm.tokenization.positions import token_starts, words_in
from lm.tokenization.tokenizer import Tokenizer

AROUND = 30  # characters of a snippet on either side of what it shows


@dataclass(frozen=True)
class Snippet:
    """A part of a text, text[start:end], with what stands before and after it."""

    start: int
    end: int
    before: str
    text: str
    after: str


def snippet(text: str, start: int, end: int, around: int = AROUND) -> Snippet:
    """The characters from `start` to `end` and up to `around` on either side."""
    before, after = text[max(start - around, 0) : start], text[end : end + around]
    return Snippet(start, end, before, text[start:end], after)


def token_spans(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first character (tokens,) of each of the `tokens` (tokens,) of `text`, and the one behind its
    last (tokens,); a separator counts as one.

    A token that is part of a character spans that character, so that its neighbours may share it. A word
    ends where its letters do; with all other kinds a token reaches up to the next.
    """
    starts = token_starts(tokenizer, text, tokens)
    ends = np.append(starts[1:], len(text))
    if tokenizer.kind == "word":
        words = words_in(text)
        word = np.searchsorted(words.starts, starts)
        begins = np.append(words.starts, -1)[word] == starts
        # What begins no word is a line's end, with the separator behind it if there is one.
        ends = np.where(begins, np.append(words.ends, 0)[word], starts + 1)
    first = characters_at(text, starts)
    return first, np.where(ends > starts, characters_at(text, ends - 1) + 1, first)


def characters_at(text: bytes, places: np.ndarray) -> np.ndarray:
    """The numbers of the characters of `text` to which the bytes at `places` belong."""
    return np.searchsorted(character_starts(text), places, side="right") - 1


def pieces(text: str, starts: np.ndarray) -> list[str]:
    """The text cut before each token that begins at the characters `starts` (tokens,): what a reader sees
    of each. Of the tokens that share a character, the last has it."""
    borders = [0, *starts[1:].tolist(), len(text)]
    return [text[begin:end] for begin, end in pairwise(borders)]
