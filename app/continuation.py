"""How drafts are continued for the page: settings checked, words made a few at a time.

Nothing here knows of Gradio.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from lm.errors import UserError

from .draft import Draft

MAX_CHARACTERS = 40_000  # characters; so many are read within a second, and only then can Stop be heard
MAX_LENGTH = 20_000  # tokens
DEFAULT_LENGTH = 400
MAX_CANDIDATES = 4
MAX_SEED = 2**53 - 1  # as far as a browser counts exactly
# To show a text takes longer than to write it: every so many seconds so many characters can be shown, to so
# many people.
_UPDATE_EVERY, _UNHURRIED_CHARACTERS, _UNHURRIED_PEOPLE = 0.05, 4_000, 4
_writers: set[object] = set()  # all that write now

log = logging.getLogger(__name__)


def update_interval(characters: int, people: int = 1) -> float:
    """Seconds from one update of a page that shows this much to the next; more often, the browser would fall
    behind and Stop not be heard."""
    return _UPDATE_EVERY * max(1, characters / _UNHURRIED_CHARACTERS, people / _UNHURRIED_PEOPLE)


@dataclass(frozen=True)
class Progress:
    """How far the writing is."""

    tokens: int  # of all drafts together
    seconds: float
    complete: bool = False  # whether it is over
    ended: bool = False  # whether the model ended the text before its length

    @property
    def tokens_per_second(self) -> float:
        """The speed, of all drafts together."""
        return self.tokens / self.seconds if self.seconds else 0.0


def checked_text(text: str) -> str:
    """`text`, if it is not too long. Raises UserError."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"The text has {len(text):,} characters and this page takes {MAX_CHARACTERS:,}: shorten it."
        )
    return text


def checked_length(length: float | None) -> int:
    """The number of tokens to write; the usual one if the field is empty. Raises UserError."""
    length = DEFAULT_LENGTH if length is None else int(length)
    if not 1 <= length <= MAX_LENGTH:
        raise UserError(f"The length is a number of tokens from 1 to {MAX_LENGTH:,}, not {length:,}.")
    return length


def checked_seed(seed: float | None) -> int:
    """The seed; a random one if the field is empty or -1. Raises UserError."""
    if seed is None or seed == -1:
        return secrets.randbits(31)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"The seed is a number from 0 to {MAX_SEED:,}; empty, or -1: a random one.")
    return int(seed)


def continue_drafts(
    drafts: Sequence[Draft], seeds: Sequence[int], max_new_tokens: int, **settings: Any
) -> Iterator[Progress]:
    """Let drafts go on side by side, each with its seed; yields some twenty times a second, less often while
    many people write.

    Tokens are made only while this is being read: closing it ends the computation.
    """
    begin, me = time.perf_counter(), object()
    counts, shown, how = [0] * len(drafts), 0.0, "stopped"

    def now(**state: bool) -> Progress:
        return Progress(sum(counts), time.perf_counter() - begin, **state)

    try:
        _writers.add(me)
        before = sum(len(draft.text) for draft in drafts)
        with ExitStack() as stack:
            going_on = {
                number: stack.enter_context(
                    closing(draft.write(seed, max_new_tokens=max_new_tokens, **settings))
                )
                for number, (draft, seed) in enumerate(zip(drafts, seeds, strict=True))
            }
            while going_on:
                for number, writer in list(going_on.items()):
                    made = next(writer, None)
                    if made is None:
                        del going_on[number]
                    else:
                        counts[number] = made
                if time.perf_counter() - shown >= update_interval(before + sum(counts), len(_writers)):
                    shown = time.perf_counter()
                    yield now()
        ended = min(counts) < max_new_tokens
        how = "the model ended the text" if ended else "complete"
        yield now(complete=True, ended=ended)
    finally:
        _writers.discard(me)
        log.info("%d tokens in %.1f s: %s", sum(counts), time.perf_counter() - begin, how)
