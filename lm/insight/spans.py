"""Which characters of a text its tokens span, and snippets of a text in context."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lm.tokenization.documents import character_starts
from lm.tokenization.positions import byte_spans
from lm.tokenization.tokenizer import Tokenizer

CONTEXT = 30  # characters shown on either side of a snippet


@dataclass(frozen=True)
class Snippet:
    """The part text[start:end] of a text with the text around it."""

    start: int
    end: int
    before: str
    text: str
    after: str


def snippet(text: str, start: int, end: int) -> Snippet:
    """text[start:end] with up to CONTEXT characters on either side."""
    before, after = text[max(start - CONTEXT, 0) : start], text[end : end + CONTEXT]
    return Snippet(start, end, before, text[start:end], after)


def token_spans(tokenizer: Tokenizer, text: bytes, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first character (tokens,) of each of the `tokens` (tokens,) of `text` and the end (tokens,) of its
    span, exclusive. A separator counts as one character.

    A token that is part of a character spans the whole character, which its neighbors may share. Whitespace
    that the tokenizer skips belongs to no span.
    """
    starts, ends = byte_spans(tokenizer, text, tokens)
    return characters_at(text, starts), characters_at(text, ends - 1) + 1


def characters_at(text: bytes, offsets: np.ndarray) -> np.ndarray:
    """The index of the character of `text` that contains the byte at each of `offsets`."""
    return np.searchsorted(character_starts(text), offsets, side="right") - 1


def pieces(text: str, starts: np.ndarray) -> list[str]:
    """The text split before each token, given the characters `starts` (tokens,) at which the tokens start.
    A character shared by several tokens goes to the last."""
    borders = [0, *starts[1:].tolist(), len(text)]
    return [text[begin:end] for begin, end in pairwise(borders)]
