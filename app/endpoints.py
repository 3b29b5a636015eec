"""The functions of the page that programs call: named endpoints for gradio_client, tools for MCP clients.

They keep no state between calls, and load only models that `list_models` lists. Clients see their docstrings,
where Gradio expects one line per argument.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Generator
from contextlib import closing
from functools import wraps
from typing import Any, get_type_hints

import gradio as gr

from lm.config.settings import shown
from lm.errors import UserError, one_line
from lm.files.model_files import read_json
from lm.insight.surprisal import score_text
from lm.storage.saving import without_paths

from .continuation import DEFAULT_LENGTH, checked_length, checked_seed, checked_text, continue_drafts
from .draft import Draft, restore_controls
from .registry import ModelRegistry
from .sampling import FUNCTION_RANGES, SETTINGS, describe, range_of
from .tabs.write.tab import WRITERS_AT_ONCE
from .ui.errors import show_errors
from .ui.model_facts import section

MAX_ALTERNATIVES = 100
MAX_STOP = 200  # characters, as on the page
_MAX_INT = 2**53  # JavaScript has only floats, which are exact up to here
_SAMPLING = ("temperature", "top_p", "top_k", "min_p")


class Endpoints:
    """The functions, over the models of a registry."""

    def __init__(self, models: ModelRegistry):
        self._models = models

    def list_models(self) -> list[dict[str, Any]]:
        """List the recurrent language models on this server, the newest first.

        Returns:
            the name of each, to pass to the other tools
            its cell, its size and its kind of tokens
            what it was trained on, and how well it predicts held-out text
        """
        models = []
        for name, folder in self._models.folders().items():
            try:
                models.append({"name": name, **_facts(read_json(folder / "config.json", folder))})
            except UserError:  # just deleted
                continue
        return models

    def continue_text(
        self,
        model: str,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = SETTINGS["temperature"].default,
        top_p: float = SETTINGS["top_p"].default,
        top_k: int = SETTINGS["top_k"].default,
        min_p: float = SETTINGS["min_p"].default,
        seed: int = -1,
        stop: str = "",
    ) -> Generator[str]:
        """Continue a text with a recurrent language model. It does not answer questions; it continues in the
        style of its training text. Clients that stream receive the text as it grows.

        Args:
            model: name of a model from list_models
            prompt: beginning of the text; empty: start a new text
            length: maximum number of tokens to generate, 1 to 20000; for most models a token is a character
            {sampling}
            seed: the same seed and settings give the same text; -1: random
            stop: end before this string, at most 200 characters; empty: generate the whole length

        Returns:
            the generated text, without the prompt
        """
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
        for name, value in sampling.items():
            low, high = bounds = range_of(name, FUNCTION_RANGES)
            if not low <= value <= high:
                raise UserError(f"'{name}' must be {describe(bounds)}, got {value:g}.")
        if len(stop) > MAX_STOP:
            raise UserError(f"'stop' may have at most {MAX_STOP} characters, got {len(stop):,}.")
        draft = Draft(self._models.load(model)).with_text(checked_text(prompt))
        start = len(draft.text)
        settings = {"stop": [stop] if stop else [], **sampling}
        with closing(
            continue_drafts([draft], [checked_seed(seed)], checked_length(length), **settings)
        ) as steps:
            for _ in steps:
                yield draft.text[start:]

    def next_tokens(self, model: str, text: str = "", count: int = 10) -> list[dict[str, Any]]:
        """Predict the next token after a text with a recurrent language model.

        Args:
            model: name of a model from list_models
            text: the text before the token; empty: the beginning of a text
            count: number of tokens to return, 1 to 100

        Returns:
            the most likely tokens in descending order, each with its probability
        """
        if not 1 <= count <= MAX_ALTERNATIVES:
            raise UserError(f"'count' must be from 1 to {MAX_ALTERNATIVES}, got {count:,}.")
        draft = Draft(self._models.load(model)).with_text(checked_text(text))
        found = draft.alternatives(len(text), count)
        return [{"token": name, "probability": p} for name, _, p in found.tokens]

    def score_text(self, model: str, text: str) -> dict[str, Any]:
        """Measure how surprising a text is to a recurrent language model, in total and word by word.

        Args:
            model: name of a model from list_models
            text: the text to score

        Returns:
            bits: total surprisal of the text
            bits_per_character
            perplexity: per token
            words: surprisal of each word in bits
        """
        loaded = self._models.load(model)
        scored = score_text(loaded, restore_controls(loaded, checked_text(text)))
        figures, words = scored.metrics, scored.per_word()
        return {
            "bits": float(scored.bits.sum()),
            "bits_per_character": figures.bits_per_character.value,
            "perplexity": figures.perplexity.value,
            "words": [
                {"word": word, "bits": float(bits)}
                for word, bits in zip(words["word"], words["surprisal"], strict=True)
            ],
        }

    def register(self) -> None:
        """Add the functions to the API of the enclosing Blocks."""
        for function in (self.list_models, self.continue_text, self.next_tokens, self.score_text):
            gr.api(
                as_endpoint(function),
                api_name=function.__name__,
                concurrency_id="write",
                concurrency_limit=WRITERS_AT_ONCE,
            )


def return_json(server: Any) -> None:
    """Let the tools of Gradio's MCP server return lists and objects as JSON, not in Python's notation.

    A text stays as it is.
    """
    to_content = server.postprocess_output_data

    def json_to_content(results: list[Any], root_url: str) -> list[Any]:
        texts = [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in results]
        return to_content(texts, root_url)

    server.postprocess_output_data = json_to_content


def as_endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function for clients: arguments are type-checked, a UserError becomes Gradio's error message,
    and {sampling} in the docstring becomes the sampling settings."""
    endpoint: Callable[..., Any]
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any]:
            with show_errors():
                yield from function(**check_arguments(function, *args, **kwargs))

        endpoint = stream
    else:

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with show_errors():
                return function(**check_arguments(function, *args, **kwargs))

        endpoint = call
    settings = [
        f"{name}: {SETTINGS[name].rule.help} ({describe(range_of(name, FUNCTION_RANGES))})"
        for name in _SAMPLING
    ]
    endpoint.__doc__ = (inspect.getdoc(function) or "").replace("{sampling}", "\n    ".join(settings))
    return endpoint


def check_arguments(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, converted to their types; None means the default.

    Raises UserError if an argument is missing, unknown or of the wrong type.
    """
    signature, types = inspect.signature(function), get_type_hints(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{function.__name__}: {one_line(error)}.") from error
    checked = {}
    for name, value in bound.arguments.items():
        default = signature.parameters[name].default
        if value is None and default is not inspect.Parameter.empty:
            continue
        checked[name] = _convert(name, types[name], value)
    return checked


def _convert(name: str, expected: type, value: Any) -> Any:
    if expected is str:
        if isinstance(value, str):
            return value
        raise UserError(f"'{name}' must be a string, got {_quoted(value)}.")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        if is_number and abs(value) > _MAX_INT:
            raise UserError(f"'{name}' must be from -{_MAX_INT:,} to {_MAX_INT:,}, got {shown(value)}.")
        if is_number and value % 1 == 0:
            return int(value)
        raise UserError(f"'{name}' must be an integer, got {_quoted(value)}.")
    try:
        if is_number and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise UserError(f"'{name}' must be a number, got {_quoted(value)}.")


def _quoted(value: Any) -> str:
    return one_line(repr(value), 60)


def _facts(config: dict[str, Any]) -> dict[str, Any]:
    """What helps to choose a model, from its config.json; missing values are left out."""
    model, trained, validation = (section(config, key) for key in ("model", "trained_on", "validation"))
    return {
        **{name: model[name] for name in ("cell", "layers", "hidden_size", "direction") if name in model},
        **{name: config[name] for name in ("parameters", "tokenizer", "vocab_size") if name in config},
        **({"trained_on": without_paths(str(trained["dataset"]))} if "dataset" in trained else {}),
        "validation": validation,
    }
