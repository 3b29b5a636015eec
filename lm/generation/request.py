"""The arguments of a generation call, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lm.config.schema import SamplingConfig, SearchConfig
from lm.config.settings import build, flag_of
from lm.errors import UserError


@dataclass(frozen=True)
class Request:
    """What to generate from a prompt; `sampling` is how each token is chosen."""

    sampling: SamplingConfig
    max_new_tokens: int = 400
    stop: Sequence[str] = ()  # the text ends before the first of these strings
    unknown: str = "replace"  # characters missing from the vocabulary: error, skip or replace
    alternatives: int = 0  # number of most likely tokens to report at each step
    ban: Sequence[str] = ()  # strings that must not occur in the text
    match: str | None = None  # regular expression that the text must match
    choices: Sequence[str] = ()  # the text must be one of these
    logit_bias: Mapping[int, float] | None = None  # token id -> number added to its logit

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Request:
        """From the fields above and those of SamplingConfig. Raises UserError for any other."""
        own = {field.name for field in fields(cls)} - {"sampling"}
        sampling = build(SamplingConfig, {k: v for k, v in settings.items() if k not in own})
        request = cls(sampling, **{k: v for k, v in settings.items() if k in own})
        if request.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, got {request.max_new_tokens}.")
        return request


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
