"""Several models, or several settings of one, continue the same prompt side by side.

Nothing here depends on Gradio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from lm.language_model import LanguageModel

from ...continuation import update_interval
from ...draft import Draft

_MAX_TOKENS_PER_CHARACTER = 4  # byte tokens: UTF-8 has up to four bytes per character

log = logging.getLogger(__name__)


@dataclass
class Generation:
    """A text being generated with one model and its settings."""

    model: LanguageModel
    temperature: float
    top_p: float
    text: str = ""  # the prompt and its continuation so far
    tokens: int = 0  # generated so far
    running: bool = True
    complete: bool = False  # reached the requested length

    @property
    def ended(self) -> bool:
        """Whether the model ended its text before the requested length."""
        return not self.running and not self.complete


def generate_side_by_side(
    generations: Sequence[Generation], prompt: str, seed: int, length: int
) -> Generator[None]:
    """Continue `prompt` in each of `generations`, with the same seed and for `length` characters each,
    because tokens of different models have different lengths.

    The generations take turns, a token each, and are updated in place; yields about twenty times a second,
    less often when the texts are long. Closing the generator ends the computation. Raises UserError, before
    any text changes, if a model cannot generate.
    """
    start, last_update, outcome = time.perf_counter(), 0.0, "stopped"
    drafts = [Draft(generation.model).with_text(prompt) for generation in generations]
    writers = [
        draft.write(
            seed,
            max_new_tokens=length * _MAX_TOKENS_PER_CHARACTER,
            temperature=generation.temperature,
            top_p=generation.top_p,
        )
        for generation, draft in zip(generations, drafts, strict=True)
    ]
    try:
        with ExitStack() as stack:
            for writer in writers:
                stack.enter_context(closing(writer))
            for generation, draft in zip(generations, drafts, strict=True):
                generation.text = draft.text
            while any(generation.running for generation in generations):
                for generation, draft, writer in zip(generations, drafts, writers, strict=True):
                    if generation.running:
                        _step(generation, draft, writer, len(prompt) + length)
                interval = update_interval(sum(len(generation.text) for generation in generations))
                if time.perf_counter() - last_update >= interval:
                    last_update = time.perf_counter()
                    yield
        outcome = "complete"
        yield
    finally:
        tokens = sum(generation.tokens for generation in generations)
        log.info("%d tokens in %.1f s side by side: %s", tokens, time.perf_counter() - start, outcome)


def _step(generation: Generation, draft: Draft, writer: Iterator[int], end: int) -> None:
    """Generate one token of a text that is complete at `end` characters."""
    tokens = next(writer, None)
    generation.tokens = generation.tokens if tokens is None else tokens
    generation.text = draft.text
    generation.complete = len(generation.text) >= end
    generation.running = tokens is not None and not generation.complete
