"""A request for completions as OpenAI's clients make it: every parameter, its range, what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lm.config.settings import did_you_mean

_USUAL_TOKENS = 16  # as OpenAI has it
_USAGE = "stream_options.include_usage"
_LEAST_SHARE = 1e-6  # a top_p of 0 means the likeliest token alone
_MOST_STOPS, _MOST_BANNED, _MOST_BIASED = 4, 64, 1024
_LONGEST_STRING = 1000  # characters of a stop string, a banned one or a pattern

_WHOLE_NUMBERS = {  # name -> the least and the largest
    "n": (1, 1024),
    "best_of": (1, 1024),
    "logprobs": (0, 5),
    "seed": (-(2**63), 2**63 - 1),
    "top_k": (0, 1_000_000),
    "repetition_window": (1, 100_000),
    "no_repeat_ngram": (0, 1000),
}
_NUMBERS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
}
_OTHERS = ("model", "prompt", "max_tokens", "stop", "logit_bias", "echo", "stream", "stream_options")
_EXTENSIONS = ("ban", "match")  # beside those among the numbers
_KNOWN = (*_WHOLE_NUMBERS, *_NUMBERS, *_OTHERS, *_EXTENSIONS, "user", "suffix")
# They are handed to the model under their own names.
_SAMPLING = ("top_k", "repetition_window", "no_repeat_ngram", *_NUMBERS)


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    tokens: int = 20_000  # of a completion
    characters: int = 40_000  # of a prompt
    streams: int = 64  # texts that are written at once, by all requests together
    body: int = 1_000_000  # bytes of a request


class Refused(Exception):
    """A request that is not served, and what the client is told."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True)
class Asked:
    """A request for completions that was checked."""

    model: str
    prompts: list[str]
    settings: dict[str, Any]  # for LanguageModel.stream_all
    max_tokens: int
    n: int
    logprobs: int | None
    seed: int | None
    echo: bool
    stream: bool
    usage: bool  # at the end of a stream

    @classmethod
    def of(cls, body: Any, limits: Limits) -> Asked:
        """From the body of a request. Raises Refused for anything that is wrong with it."""
        if not isinstance(body, dict):
            raise Refused("the body of the request must be a JSON object.")
        body = {name: value for name, value in body.items() if value is not None}
        for name in body:
            if name not in _KNOWN:
                name = name[:60]
                raise Refused(f"there is no parameter '{name}'{did_you_mean(name, _KNOWN) or '.'}", name)
        if "suffix" in body:
            raise Refused("'suffix' is not supported: these models write on, they fill no gaps.", "suffix")
        if not isinstance(body.get("model"), str):
            raise Refused("'model' must name a model; GET /v1/models lists them.", "model")
        whole = {name: _number(body, name, *_WHOLE_NUMBERS[name], whole=True) for name in _WHOLE_NUMBERS}
        numbers = {name: _number(body, name, *_NUMBERS[name]) for name in _NUMBERS}
        max_tokens = _number(body, "max_tokens", 0, limits.tokens, whole=True)
        max_tokens = _USUAL_TOKENS if max_tokens is None else max_tokens
        prompts, n, logprobs = _prompts(body, limits), whole["n"] or 1, whole["logprobs"]
        if whole["best_of"] not in (None, n):
            raise Refused("'best_of' is not supported: leave it out, or make it the same as 'n'.", "best_of")
        if len(prompts) * n > limits.streams:
            raise Refused(
                f"{len(prompts)} prompts, {n} completions each: this server writes at most {limits.streams}"
                " texts at once. Ask for fewer.", "n" if n > 1 else "prompt",
            )  # fmt: skip
        options = body.get("stream_options", {})
        if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
            raise Refused("'stream_options' is an object that may hold 'include_usage'.", "stream_options")
        numbers = {"temperature": 1.0, **{name: v for name, v in numbers.items() if v is not None}}
        for name in {"top_p", "typical_p"} & numbers.keys():
            numbers[name] = max(numbers[name], _LEAST_SHARE)
        settings = {
            name: v for name, v in {**whole, **numbers}.items() if name in _SAMPLING and v is not None
        }
        settings |= {
            "stop": _strings(body, "stop", _MOST_STOPS),
            "ban": _strings(body, "ban", _MOST_BANNED),
            "match": next(iter(_strings(body, "match", 1)), None),
            "logit_bias": _bias(body),
            "alternatives": logprobs or 0,
        }
        flag = {name: _flag(body, name) for name in ("echo", "stream")}
        usage = _flag({f"stream_options.{name}": value for name, value in options.items()}, _USAGE)
        return cls(
            body["model"], prompts, settings, max_tokens, n, logprobs, whole["seed"], usage=usage, **flag
        )


def _number(body: dict, name: str, low: float, high: float, whole: bool = False) -> Any:
    value = body.get(name)
    if value is None:
        return None
    kind, article = (int, "a whole number") if whole else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        low, high = (f"{bound:,}" if whole else f"{bound:g}" for bound in (low, high))
        raise Refused(f"'{name}' is {article} from {low} to {high}, not {_shown(value)}.", name)
    return value if whole else float(value)


def _flag(body: dict, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"'{name}' is true or false, not {_shown(value)}.", name)
    return bool(value)


def _strings(body: dict, name: str, most: int) -> list[str]:
    """One string or several; empty ones mean nothing."""
    value = body.get(name, [])
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings) or len(strings) > most:
        several = f" or a list of at most {most}" if most > 1 else ""
        raise Refused(f"'{name}' is a string{several}, not {_shown(value)}.", name)
    if any(len(string) > _LONGEST_STRING for string in strings):
        raise Refused(f"a string of '{name}' has at most {_LONGEST_STRING:,} characters.", name)
    return [string for string in strings if string]


def _prompts(body: dict, limits: Limits) -> list[str]:
    """The prompts; without one a text begins."""
    prompts = body.get("prompt", "")
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise Refused("'prompt' is a string or a list of strings; tokens are not taken.", "prompt")
    longest = max(map(len, prompts))
    if longest > limits.characters:
        raise Refused(
            f"a prompt has {longest:,} characters and this server takes {limits.characters:,}: shorten it.",
            "prompt", "context_length_exceeded",
        )  # fmt: skip
    return prompts


def _bias(body: dict) -> dict[int, float]:
    biases = body.get("logit_bias", {})
    message = "'logit_bias' is an object of a token's id, such as \"17\", and a number from -100 to 100"
    if not isinstance(biases, dict) or len(biases) > _MOST_BIASED:
        raise Refused(f"{message}, of at most {_MOST_BIASED:,} tokens.", "logit_bias")
    for token, value in biases.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (
            token.isascii() and token.isdecimal() and len(token) < 10 and number and -100 <= value <= 100
        ):
            raise Refused(f"{message}, not {_shown({token: value})}.", "logit_bias")
    return {int(token): float(value) for token, value in biases.items()}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
