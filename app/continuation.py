"""Continuing drafts for the page: limits on the settings, and a loop that reports progress.

Nothing here depends on Gradio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from lm.errors import UserError
from lm.generation.request import seed_or_random

from .draft import Draft

MAX_CHARACTERS = 40_000  # of a text that is read within a second, in one step
MAX_STORY = 1_000_000  # characters of a text that is read in many steps; Stop works between them
MAX_LENGTH = 20_000  # tokens
DEFAULT_LENGTH = 400  # tokens
MAX_CANDIDATES = 4
MAX_SEED = 2**53 - 1  # the largest integer that JavaScript counts to exactly
# Displaying text takes longer than generating it. Browsers keep up with this interval for texts of up to
# _FAST_CHARACTERS and with up to _FAST_WRITERS writing at the same time.
_UPDATE_SECONDS = 0.05
_FAST_CHARACTERS = 10_000
_FAST_WRITERS = 4
_writers: set[object] = set()  # the calls of `continue_drafts` in progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The state of a continuation."""

    tokens: int  # of all drafts together
    seconds: float
    complete: bool = False
    ended: bool = False  # whether the model ended a text before the requested length

    @property
    def tokens_per_second(self) -> float:
        """The speed of all drafts together."""
        return self.tokens / self.seconds if self.seconds else 0.0


def checked_text(text: str, maximum: int = MAX_CHARACTERS) -> str:
    """`text`. Raises UserError if it has more characters than the `maximum`."""
    if len(text) > maximum:
        raise UserError(
            f"the text has {len(text):,} characters, more than the maximum of {maximum:,}: shorten it."
        )
    return text


def checked_length(length: float | None) -> int:
    """The number of tokens to generate; the default if the field is empty. Raises UserError."""
    length = DEFAULT_LENGTH if length is None else int(length)
    if not 1 <= length <= MAX_LENGTH:
        raise UserError(f"the length must be between 1 and {MAX_LENGTH:,} tokens, got {length:,}.")
    return length


def checked_seed(seed: float | None) -> int:
    """The seed; a random one if the field is empty or -1. Raises UserError."""
    if seed is None or seed == -1:
        return seed_or_random(None)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"the seed must be between 0 and {MAX_SEED:,}, or -1 for a random one.")
    return int(seed)


def continue_drafts(
    drafts: Sequence[Draft], seeds: Sequence[int], max_new_tokens: int, **settings: Any
) -> Generator[Progress]:
    """Continue drafts in parallel, each with its own seed; yields about twenty times a second, less often for
    long texts and while many users are writing.

    Tokens are generated only while the generator is consumed; closing it stops the computation.
    """
    start, writer = time.perf_counter(), object()
    counts, updated, outcome = [0] * len(drafts), 0.0, "stopped"

    def progress(**state: bool) -> Progress:
        return Progress(sum(counts), time.perf_counter() - start, **state)

    try:
        _writers.add(writer)
        characters = sum(len(draft.text) for draft in drafts)
        with ExitStack() as stack:
            active = {
                i: stack.enter_context(closing(draft.write(seed, max_new_tokens=max_new_tokens, **settings)))
                for i, (draft, seed) in enumerate(zip(drafts, seeds, strict=True))
            }
            while active:
                for i, tokens in list(active.items()):
                    count = next(tokens, None)
                    if count is None:
                        del active[i]
                    else:
                        counts[i] = count
                if time.perf_counter() - updated >= update_interval(characters + sum(counts), len(_writers)):
                    updated = time.perf_counter()
                    yield progress()
        ended = min(counts) < max_new_tokens
        outcome = "the model ended the text" if ended else "complete"
        yield progress(complete=True, ended=ended)
    finally:
        _writers.discard(writer)
        log.info("%d tokens in %.1f s: %s", sum(counts), time.perf_counter() - start, outcome)


def update_interval(characters: int, writers: int = 1) -> float:
    """Seconds between two updates of a page that shows this many characters. With more updates the browser
    would fall behind, and Stop would respond late."""
    return _UPDATE_SECONDS * max(1, characters / _FAST_CHARACTERS, writers / _FAST_WRITERS)
