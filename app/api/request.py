"""Completion requests as OpenAI's clients send them: their parameters, parsed and validated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lm.console.wording import did_you_mean

from ..sampling import API_RANGES, SETTINGS, Range, range_of
from .defaults import unsupported, without_defaults

DEFAULT_MAX_TOKENS = 16  # as in OpenAI's API
DEFAULT_TEMPERATURE = 1.0
_MIN_PROBABILITY = 1e-6  # used for 0 where SamplingConfig needs more: only the most likely token is left
_MAX_STOPS, _MAX_BANS, _MAX_BIASES = 16, 64, 1024
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_MAX_STRING = 1000  # characters of a stop string, banned string or pattern

_SAMPLING = tuple(name for name in SETTINGS if name != "greedy")  # which is temperature 0
_INTEGERS: dict[str, Range] = {
    "n": (1, 1024),
    "best_of": (1, 1024),
    "logprobs": (0, 5),
    "seed": (-(2**63), 2**63 - 1),
}
_PARAMETERS = (
    *_INTEGERS,
    *_SAMPLING,
    *("model", "prompt", "max_tokens", "stop", "logit_bias", "echo", "stream", "stream_options"),
    *("ban", "match"),  # not in OpenAI's API
)

Prompt = str | list[int]  # a text or its token ids


@dataclass(frozen=True)
class Limits:
    """What a server accepts."""

    max_tokens: int = 20_000  # per completion
    prompt_characters: int = 40_000  # or tokens, if the prompt is token ids
    sequences: int = 64  # generated at the same time, over all requests
    reserve: int = 16  # further ones, for clients that want few
    waiting: int = 256  # requests that wait for others to end
    body_bytes: int = 4_000_000  # as many prompts of that length, in ASCII


class RequestError(Exception):
    """A request that cannot be served, with the fields of OpenAI's error object."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True)
class CompletionRequest:
    """A validated request for completions."""

    model: str
    prompts: list[Prompt]
    settings: dict[str, Any]  # arguments of LanguageModel.stream_all
    max_tokens: int
    n: int
    logprobs: int | None
    seed: int | None
    echo: bool
    stream: bool
    include_usage: bool  # at the end of a stream

    @property
    def sequences(self) -> int:
        """The number of completions."""
        return len(self.prompts) * self.n

    @classmethod
    def parse(cls, body: Any, limits: Limits) -> CompletionRequest:
        """Validate the JSON body of a request. Raises RequestError naming the first invalid parameter."""
        if not isinstance(body, dict):
            raise RequestError("the request body must be a JSON object.")
        body = without_defaults(body)
        for name in body:
            if name not in _PARAMETERS:
                name = name[:60]
                unknown = f"unknown parameter '{name}'{did_you_mean(name, _PARAMETERS)}"
                raise RequestError(unsupported(name) or unknown, name)
        if not isinstance(body.get("model"), str):
            raise RequestError("'model' must be the name of a model; GET /v1/models lists them.", "model")
        integers = {name: _integer(body, name, bounds) for name, bounds in _INTEGERS.items()}
        sampling = _sampling(body)
        max_tokens = _integer(body, "max_tokens", (0, limits.max_tokens))
        prompts, n, logprobs = _prompts(body, limits), integers["n"] or 1, integers["logprobs"]
        if integers["best_of"] not in (None, n):
            raise RequestError("'best_of' is not supported: omit it or set it to 'n'.", "best_of")
        if len(prompts) * n > limits.sequences:
            raise RequestError(
                f"{len(prompts) * n} completions are too many for one request; this server generates at most"
                f" {limits.sequences} (the number of prompts times 'n').",
                "n" if n > 1 else "prompt",
            )
        options = body.get("stream_options", {})
        if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
            raise RequestError(
                "'stream_options' must be an object with the optional field 'include_usage'.",
                "stream_options",
            )
        return cls(
            model=body["model"],
            prompts=prompts,
            settings={
                **sampling,
                "stop": _strings(body, "stop", _MAX_STOPS),
                "ban": _strings(body, "ban", _MAX_BANS),
                "match": next(iter(_strings(body, "match", 1)), None),
                "logit_bias": _logit_bias(body),
                "alternatives": logprobs or 0,
            },
            max_tokens=DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
            n=n,
            logprobs=logprobs,
            seed=integers["seed"],
            echo=_flag(body.get("echo"), "echo"),
            stream=_flag(body.get("stream"), "stream"),
            include_usage=_flag(options.get("include_usage"), "stream_options.include_usage"),
        )


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of SamplingConfig that the request sets, and OpenAI's default temperature."""
    sampling: dict[str, Any] = {"temperature": DEFAULT_TEMPERATURE}
    for name in _SAMPLING:
        bounds, setting = range_of(name, API_RANGES), SETTINGS[name]
        value = (_integer if setting.type is int else _number)(body, name, bounds)
        if value is not None:
            valid = setting.rule.contains(value)
            sampling[name] = value if valid else _MIN_PROBABILITY
    return sampling


def _integer(body: dict[str, Any], name: str, bounds: Range) -> int | None:
    value, (low, high) = body.get(name), bounds
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # some languages have no integers
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(
            f"'{name}' must be an integer from {low:,} to {high:,}, got {_quoted(value)}.", name
        )
    return value


def _number(body: dict[str, Any], name: str, bounds: Range) -> float | None:
    value, (low, high) = body.get(name), bounds
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"'{name}' must be a number from {low:g} to {high:g}, got {_quoted(value)}.", name)
    return float(value)


def _flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"'{name}' must be true or false, got {_quoted(value)}.", name)
    return bool(value)


def _strings(body: dict[str, Any], name: str, limit: int) -> list[str]:
    """One string or a list of up to `limit`; empty strings are dropped."""
    value = body.get(name, [])
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings) or len(strings) > limit:
        several = f" or a list of at most {limit} strings" if limit > 1 else ""
        raise RequestError(f"'{name}' must be a string{several}, got {_quoted(value)}.", name)
    if any(len(string) > _MAX_STRING for string in strings):
        raise RequestError(f"each string in '{name}' may have at most {_MAX_STRING:,} characters.", name)
    return [string for string in strings if string]


def _prompts(body: dict[str, Any], limits: Limits) -> list[Prompt]:
    """The prompts; one empty prompt by default."""
    given = body.get("prompt", "")
    prompts = [given] if isinstance(given, str) or _are_token_ids(given) else given
    is_list = isinstance(prompts, list)
    if not is_list or not (all(isinstance(p, str) for p in prompts) or all(map(_are_token_ids, prompts))):
        raise RequestError(
            f"'prompt' must be a string, a list of token ids, or a list of either, got {_quoted(given)}.",
            "prompt",
        )
    longest, limit = max(prompts, key=len), limits.prompt_characters
    if len(longest) > limit:
        unit = "characters" if isinstance(longest, str) else "tokens"
        raise RequestError(
            f"a prompt has {len(longest):,} {unit}; this server accepts at most {limit:,}.",
            "prompt",
            "context_length_exceeded",
        )
    return prompts


def _are_token_ids(value: Any) -> bool:
    """Whether this may be a prompt of token ids; the model's vocabulary decides which ids exist."""
    return isinstance(value, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in value)


def _logit_bias(body: dict[str, Any]) -> dict[int, float]:
    biases = body.get("logit_bias", {})
    expected = "'logit_bias' must be an object that maps token ids such as \"17\" to numbers from -100 to 100"
    if not isinstance(biases, dict) or len(biases) > _MAX_BIASES:
        raise RequestError(f"{expected}, with at most {_MAX_BIASES:,} tokens.", "logit_bias")
    for token, value in biases.items():
        is_id = token.isascii() and token.isdecimal() and len(token) < 10
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_id and is_number and -100 <= value <= 100):
            raise RequestError(f"{expected}, got {_quoted({token: value})}.", "logit_bias")
    return {int(token): float(value) for token, value in biases.items()}


def _quoted(value: Any) -> str:
    """A value as JSON, shortened for an error message."""
    text = ""
    for part in _ENCODER.iterencode(value):  # lazily, since the value may be as long as the request
        text += part
        if len(text) > 60:
            return text[:59] + "…"
    return text
