"""The page's functions for programs: what gradio_client calls by name, and what an MCP client has as tools.

They keep nothing between two calls. Every model is one of the list that `list_models` tells. Gradio makes the
descriptions that a program sees of the docstrings, line by line: each argument has one line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator
from contextlib import closing
from functools import wraps
from typing import Any, get_type_hints

import gradio as gr

from lm import saving
from lm.errors import UserError, one_line
from lm.insight.surprisal import score_text

from .continuation import checked_length, checked_seed, checked_text, continue_drafts
from .draft import Draft, restore_controls
from .registry import ModelRegistry
from .tabs.write.tab import WRITERS_AT_ONCE
from .ui.errors import show_errors
from .ui.model_facts import dataset_name

MOST_ALTERNATIVES = 100
LONGEST_STOP = 200  # characters, as on the page
# Those of the page's sliders: far beyond them the probabilities are no numbers any more.
_RANGES = {"temperature": (0, 2), "top_p": (0.01, 1), "min_p": (0, 1)}


class Functions:
    """What programs may ask of some models."""

    def __init__(self, models: ModelRegistry):
        self._models = models

    def list_models(self) -> list[dict[str, Any]]:
        """List the recurrent language models that there are, the newest first.

        Returns:
            the name of each, which the other tools take
            its cell, its size and its kind of tokens
            what it was trained on, and how well it predicts text that it has not seen
        """
        listed = []
        for name, folder in self._models.folders().items():
            try:
                listed.append({"name": name, **_facts(saving.read_json(folder / "config.json", folder))})
            except UserError:  # deleted in this moment
                continue
        return listed

    def continue_text(
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
        """Let a recurrent language model continue a text. It answers no questions: it goes on in the manner
        of what it was trained on. A client that streams gets the text as it grows.

        Args:
            model: name of a model, as list_models tells it
            prompt: how the text begins; empty: the model begins one
            length: how many tokens to write at most, 1 to 20000; of most models a token is one character
            temperature: 0 to 2; 0: always the likeliest token, above 1: more surprising text
            top_p: choose among the likeliest tokens that together have this probability, 0.01 to 1; 1: all
            top_k: choose among so many of the likeliest tokens; 0: all
            min_p: leave out tokens less likely than this share of the likeliest one, 0 to 1; 0: none
            seed: the same seed and settings give the same text; -1: a random one
            stop: end before this text comes, at most 200 characters; empty: write the whole length

        Returns:
            what the model wrote, without the prompt
        """
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
        for name, (low, high) in _RANGES.items():
            if not low <= sampling[name] <= high:
                raise UserError(f"'{name}' is a number from {low:g} to {high:g}, not {sampling[name]:g}.")
        if len(stop) > LONGEST_STOP:
            raise UserError(f"'stop' has {len(stop):,} characters and may have {LONGEST_STOP}: shorten it.")
        draft = Draft(self._models.load(model)).with_text(checked_text(prompt))
        begin = len(draft.text)
        settings = {"stop": [stop] if stop else [], **sampling}
        with closing(
            continue_drafts([draft], [checked_seed(seed)], checked_length(length), **settings)
        ) as steps:
            for _ in steps:
                yield draft.text[begin:]

    def next_tokens(self, model: str, text: str = "", count: int = 10) -> list[dict[str, Any]]:
        """Tell what a recurrent language model thinks comes next after a text.

        Args:
            model: name of a model, as list_models tells it
            text: what stands before; empty: a text begins
            count: how many tokens to tell, 1 to 100

        Returns:
            the likeliest tokens, the likeliest first, each with its probability
        """
        if not 1 <= count <= MOST_ALTERNATIVES:
            raise UserError(f"'count' is a number of tokens from 1 to {MOST_ALTERNATIVES}, not {count:,}.")
        draft = Draft(self._models.load(model)).with_text(checked_text(text))
        found = draft.alternatives(len(text), count)
        return [{"token": name, "probability": p} for name, _, p in found.tokens]

    def score_text(self, model: str, text: str) -> dict[str, Any]:
        """Tell how surprising a text is to a recurrent language model, in all and word by word.

        Args:
            model: name of a model, as list_models tells it
            text: the text to score

        Returns:
            bits: the surprisal of the whole text
            bits_per_character
            perplexity: of a token
            words: the surprisal of each word in bits
        """
        loaded = self._models.load(model)
        scored = score_text(loaded, restore_controls(loaded, checked_text(text)))
        figures, words = scored.figures, scored.per_word()
        return {
            "bits": float(scored.bits.sum()),
            "bits_per_character": figures.bits_per_character.value,
            "perplexity": figures.perplexity.value,
            "words": [
                {"word": word, "bits": float(bits)}
                for word, bits in zip(words["word"], words["surprisal"], strict=True)
            ],
        }

    def offer(self) -> None:
        """Make them known in the Blocks around."""
        for function in (self.list_models, self.continue_text, self.next_tokens, self.score_text):
            gr.api(
                told(function),
                api_name=function.__name__,
                concurrency_id="write",
                concurrency_limit=WRITERS_AT_ONCE,
            )


def told(function: Callable) -> Callable:
    """The function as a program calls it: each argument is of its type, and a UserError is a message."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def as_called(*arguments: Any, **named: Any) -> Generator[Any]:
            with show_errors():
                yield from function(**checked_arguments(function, *arguments, **named))
    else:

        @wraps(function)
        def as_called(*arguments: Any, **named: Any) -> Any:
            with show_errors():
                return function(**checked_arguments(function, *arguments, **named))

    return as_called


def checked_arguments(function: Callable, *arguments: Any, **named: Any) -> dict[str, Any]:
    """The arguments of a call by their names, each of its type; what is None has its default. Raises
    UserError."""
    signature, types = inspect.signature(function), get_type_hints(function)
    try:
        bound = signature.bind(*arguments, **named)
    except TypeError as error:
        raise UserError(f"{function.__name__}: {one_line(error)}.") from error
    checked = {}
    for name, value in bound.arguments.items():
        default = signature.parameters[name].default
        if value is None and default is not inspect.Parameter.empty:
            continue
        checked[name] = _checked(name, types[name], value)
    return checked


def _checked(name: str, wanted: type, value: Any) -> Any:
    if wanted is str:
        if isinstance(value, str):
            return value
        raise UserError(f"'{name}' must be a string, not {_shown(value)}.")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        # JavaScript has one kind of number, which counts as far as this.
        if number and abs(value) <= 2**53 and value == int(value):
            return int(value)
        raise UserError(f"'{name}' must be a whole number, not {_shown(value)}.")
    try:
        if number and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise UserError(f"'{name}' must be a number, not {_shown(value)}.")


def _shown(value: Any) -> str:
    return one_line(repr(value), 60)


def _facts(config: dict[str, Any]) -> dict[str, Any]:
    """Of config.json what helps to choose a model; what it does not tell is left out."""
    model, trained, validation = (
        value if isinstance(value := config.get(key), dict) else {}
        for key in ("model", "trained_on", "validation")
    )
    return {
        **{name: model[name] for name in ("cell", "layers", "hidden_size", "direction") if name in model},
        **{name: config[name] for name in ("parameters", "tokenizer", "vocab_size") if name in config},
        **({"trained_on": dataset_name(trained["dataset"])} if "dataset" in trained else {}),
        "validation": validation,
    }
