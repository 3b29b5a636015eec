"""How a text is continued for the page: settings checked, words made a few at a time, turns kept.

Nothing here knows of Gradio.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.visible import CONTROLS, printable

LONGEST_TEXT = 40_000  # characters; so many are read within a second, and only then can Stop be heard
LONGEST_CONTINUATION = 20_000  # tokens
USUAL_CONTINUATION = 400
LARGEST_SEED = 2**53 - 1  # as far as a browser counts exactly
_UPDATE_EVERY = 0.05  # seconds
_TURNS_KEPT = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """One continuation by the model."""

    before: str  # the text when the button was pressed; Undo brings it back
    start: str  # the text that was continued; Regenerate continues it again


@dataclass(frozen=True)
class Past:
    """The turns of one person, and the seed of the last."""

    turns: tuple[Turn, ...] = ()
    seed: int | None = None

    def with_turn(self, before: str, start: str, seed: int) -> Past:
        return Past((*self.turns, Turn(before, start))[-_TURNS_KEPT:], seed)

    def without_last(self) -> Past:
        return replace(self, turns=self.turns[:-1])


def checked_text(text: str) -> str:
    """`text`, if it is not too long. Raises UserError."""
    if len(text) > LONGEST_TEXT:
        raise UserError(
            f"The text has {len(text):,} characters and this page takes {LONGEST_TEXT:,}: shorten it."
        )
    return text


def checked_length(length: float | None) -> int:
    """The number of tokens to write; the usual one if the field is empty. Raises UserError."""
    length = USUAL_CONTINUATION if length is None else int(length)
    if not 1 <= length <= LONGEST_CONTINUATION:
        raise UserError(
            f"The length is a number of tokens from 1 to {LONGEST_CONTINUATION:,}, not {length:,}."
        )
    return length


def checked_seed(seed: float | None) -> int:
    """The seed; a random one if the field is empty or -1. Raises UserError."""
    if seed is None or seed == -1:
        return secrets.randbits(31)
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"The seed is a number from 0 to {LARGEST_SEED:,}; empty, or -1: a random one.")
    return int(seed)


def as_meant(model: LanguageModel, text: str) -> str:
    """`text` from the page as the model is to read it: what was made visible there is a control
    character again, unless the model knows the picture itself."""
    for picture in CONTROLS.keys() & set(text):
        if model.tokenizer.unk is None or model.tokenizer.unknown_in(picture):
            text = text.replace(picture, CONTROLS[picture])
    return text


def continuation(
    model: LanguageModel, text: str, *, seed: int, max_new_tokens: int, **sampling: Any
) -> Iterator[tuple[str, str]]:
    """Continue `text`: yield it as it grows, some twenty times a second, with a line on its making.

    Tokens are made only while this is being read: closing it ends the computation.
    """
    begin = time.perf_counter()
    written, shown, count, how = "", 0.0, 0, "stopped"
    pieces = model.stream(as_meant(model, text), seed=seed, max_new_tokens=max_new_tokens, **sampling)
    try:
        with closing(pieces):
            for count, piece in enumerate(pieces, start=1):
                written += piece.text
                now = time.perf_counter()
                if now - shown >= _UPDATE_EVERY:
                    shown = now
                    yield text + printable(written), _line(seed, count, now - begin)
        how = "complete" if count == max_new_tokens else "the model ended the text"
        line = _line(seed, count, time.perf_counter() - begin)
        yield text + printable(written), line if count == max_new_tokens else f"{line} · {how}"
    finally:
        log.info("%d tokens in %.1f s: %s", count, time.perf_counter() - begin, how)


def _line(seed: int, count: int, seconds: float) -> str:
    return f"seed {seed} · {count:,} tokens · {count / seconds:,.0f} tokens/s"
