"""The arguments of a generation call, with their defaults."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from lm.config.schema import SamplingConfig, SearchConfig
from lm.config.settings import build, check_known, flag_of, settings_of, whole_number
from lm.errors import UserError

UNKNOWN = ("error", "skip", "replace")  # what can happen to text that is not in the vocabulary


@dataclass(frozen=True)
class Request:
    """What to generate from a prompt; `sampling` is how each token is chosen."""

    sampling: SamplingConfig
    max_new_tokens: int = 400
    stop: Sequence[str] = ()  # the text ends before the first of these strings
    unknown: str = "replace"  # one of UNKNOWN
    alternatives: int = 0  # number of most likely tokens to report at each step
    ban: Sequence[str] = ()  # strings that must not occur in the text
    match: str | None = None  # regular expression that the text must match
    choices: Sequence[str] = ()  # the text must be one of these
    logit_bias: Mapping[int, float] | None = None  # token id -> number added to its logit

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Request:
        """From the fields above and those of SamplingConfig.

        A single string counts as a list of one. Raises UserError for any other name and for invalid values.
        """
        names = {field.name for field in fields(cls)} - {"sampling"}
        check_known(settings, {*names, *settings_of(SamplingConfig)})
        sampling = build(SamplingConfig, {k: v for k, v in settings.items() if k not in names})
        own = {name: value for name, value in settings.items() if name in names}
        for name, minimum in (("max_new_tokens", 1), ("alternatives", 0)):
            if name in own:
                own[name] = whole_number(name, own[name], minimum)
        for name in ("stop", "ban", "choices"):
            if name in own:
                own[name] = _strings(name, own[name])
        if not isinstance(own.get("match"), str | None):
            raise UserError(f"match must be a string, got {own['match']!r}.")
        check_unknown(own.get("unknown", "replace"))
        if not _is_bias(own.get("logit_bias")):
            raise UserError("logit_bias must map token ids to the numbers that are added to their logits.")
        return cls(sampling, **own)


def seed_or_random(seed: int | None) -> int:
    """A seed from 0 to 2**64 - 1: a random one for None, and -1 is the last one, as for `torch.manual_seed`.

    Raises UserError unless the seed is a whole number from -2**63 to 2**64 - 1.
    """
    if seed is None:
        return secrets.randbits(31)
    number = whole_number("seed", seed, -(2**63))
    if number >= 2**64:
        raise UserError(f"seed must be at most {2**64 - 1}, got {number}.")
    return number % 2**64


def seeds_from(seed: int | None, count: int) -> list[int]:
    """The seeds of `count` samples: that of `seed_or_random` and those after it; 0 follows the last seed."""
    first = seed_or_random(seed)
    return [(first + i) % 2**64 for i in range(count)]


def check_unknown(unknown: Any) -> None:
    """Raise UserError unless `unknown` is one of UNKNOWN."""
    if unknown not in UNKNOWN:
        raise UserError(f"unknown must be one of {', '.join(UNKNOWN)}, got {unknown!r}.")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else None
    if values is None or not all(isinstance(string, str) for string in values):
        raise UserError(f"{name} must be a string or a list of strings, got {value!r}.")
    return values


def _is_bias(value: Any) -> bool:
    """Whether a logit bias has the right types; its range depends on the model."""
    if not isinstance(value, Mapping):
        return value is None
    return all(hasattr(token, "__index__") and isinstance(bias, Real) for token, bias in value.items())


def check_search(search: SearchConfig, sampling: SamplingConfig, seed: int | None) -> None:
    """Raise UserError for settings that have no effect on a beam search, or only on one."""
    if search.beams == 1:
        if search.length_penalty != SearchConfig.length_penalty:
            raise UserError("--length-penalty requires --beams.")
        return
    given = [f.name for f in fields(sampling) if getattr(sampling, f.name) != f.default]
    given += [] if seed is None else ["seed"]
    if ignored := [name for name in given if name != "no_repeat_ngram"]:
        raise UserError(
            f"{flag_of(ignored[0])} has no effect on a beam search, which does not sample; leave it or"
            " --beams out."
        )
