"""The page's functions for programs: what gradio_client calls by name, and what an MCP client has as tools.

They keep nothing between two calls. Every model is one of the list that `models` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from functools import wraps
from typing import Any

import gradio as gr

from app.draft import Draft, as_meant
from app.facts import facts
from app.messages import told_to_the_person
from app.models import Models
from app.write import WRITERS_AT_ONCE
from app.writing import checked_length, checked_seed, checked_text, continued
from lm import hub
from lm.surprisal import score_text

MOST_ALTERNATIVES = 100


class Functions:
    """What programs may ask of some models."""

    def __init__(self, models: Models):
        self._models = models

    def models(self) -> list[dict[str, str]]:
        """List the language models that there are, the newest first: the name of each, which the other
        functions take, its cell, size, what it was trained on and how well it predicts text."""
        found = []
        for name, folder in self._models.found().items():
            with told_to_the_person():
                config = hub.read_json(folder / "config.json", folder)
            found.append({"Name": name, **dict(facts(config))})
        return found

    def write(
        self,
        model: str,
        prompt: str = "",
        length: int = 400,
        temperature: float = 0.8,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        seed: int = -1,
        stop: str = "",
    ) -> Generator[str]:
        """Continue a text with a recurrent language model, and give back what the model wrote.

        Args:
            model: the name of a model, as the function models tells it
            prompt: how the text begins; empty: the model begins
            length: how many tokens to write at most
            temperature: above 1 more surprising, below 1 more likely text; 0: always the likeliest token
            top_p: choose among the likeliest tokens that together have this probability; 1: all
            top_k: choose among so many likeliest tokens; 0: all
            min_p: leave out tokens less likely than this share of the likeliest; 0: none
            seed: the same seed and settings give the same text; -1: a random one
            stop: end before this text; empty: write the whole length
        """
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": int(top_k), "min_p": min_p}
        draft = Draft(self._models.load(model)).followed(checked_text(prompt))
        begin = len(draft.text)
        settings = {"stop": [stop] if stop else [], **sampling}
        with closing(continued([draft], [checked_seed(seed)], checked_length(length), **settings)) as steps:
            for _ in steps:
                yield draft.text[begin:]

    def alternatives(self, model: str, text: str = "", count: int = 10) -> list[dict[str, Any]]:
        """Tell which tokens a model thinks likeliest after a text, each with its probability.

        Args:
            model: the name of a model, as the function models tells it
            text: what stands before
            count: how many tokens to tell, at most 100
        """
        count = max(1, min(MOST_ALTERNATIVES, int(count)))
        draft = Draft(self._models.load(model)).followed(checked_text(text))
        found = draft.alternatives(len(text), count)
        return [{"token": name, "probability": p} for name, _, p in found.tokens]

    def score(self, model: str, text: str) -> dict[str, Any]:
        """Tell how surprising a text is to a model: in all, and for each word in bits.

        Args:
            model: the name of a model, as the function models tells it
            text: the text to score
        """
        loaded = self._models.load(model)
        scored = score_text(loaded, as_meant(loaded, checked_text(text)))
        figures, words = scored.figures, scored.per_word()
        return {
            "bits": float(scored.bits.sum()),
            "bits_per_character": figures.bits_per_character.value,
            "perplexity": math.exp(scored.losses.mean()),
            "words": [
                {"word": word, "bits": float(bits)}
                for word, bits in zip(words["word"], words["surprisal"], strict=True)
            ],
        }

    def offer(self) -> None:
        """Make them known in the Blocks around."""
        for function in (self.models, self.write, self.alternatives, self.score):
            gr.api(
                _told(function),
                api_name=function.__name__,
                concurrency_id="write",
                concurrency_limit=WRITERS_AT_ONCE,
            )


def _told(function: Callable) -> Callable:
    """The function, with a UserError as the message that a program gets."""
    if function.__name__ == "write":

        @wraps(function)
        def told(*arguments: Any, **named: Any) -> Generator[str]:
            with told_to_the_person():
                yield from function(*arguments, **named)
    else:

        @wraps(function)
        def told(*arguments: Any, **named: Any) -> Any:
            with told_to_the_person():
                return function(*arguments, **named)

    return told
