"""What can be asked of a model that shall write, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lm.config.schema import SamplingConfig
from lm.config.settings import build
from lm.errors import UserError


@dataclass(frozen=True)
class Request:
    """What is asked of a model beside the prompt; `sampling` says how a token is chosen."""

    sampling: SamplingConfig
    max_new_tokens: int = 400
    stop: Sequence[str] = ()  # the text ends before the first of these strings
    unknown: str = "replace"  # characters that the vocabulary lacks: error, skip or replace
    alternatives: int = 0  # how many of the likeliest tokens to tell at each step
    ban: Sequence[str] = ()  # strings that the text may not hold
    match: str | None = None  # a regular expression that it must match
    choices: Sequence[str] = ()  # or the only texts that it may be
    logit_bias: Mapping[int, float] | None = None  # added to the logits of tokens

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Request:
        """From the fields above and those of SamplingConfig. Raises UserError for any other."""
        own = {field.name for field in fields(cls)} - {"sampling"}
        sampling = build(SamplingConfig, {k: v for k, v in settings.items() if k not in own})
        request = cls(sampling, **{k: v for k, v in settings.items() if k in own})
        if request.max_new_tokens < 1:
            raise UserError(f"the number of new tokens must be at least 1, not {request.max_new_tokens}.")
        return request
