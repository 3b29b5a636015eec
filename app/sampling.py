"""The ranges of SamplingConfig's settings in the API and the web UI."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lm.config.schema import SamplingConfig
from lm.config.settings import settings_of

Range = tuple[float, float]  # smallest and largest value

SETTINGS = settings_of(SamplingConfig)

# The API follows OpenAI where OpenAI has the parameter; the other limits only exclude nonsense.
API_RANGES: dict[str, Range] = {
    "temperature": (0, 2),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
    "top_k": (0, 1_000_000),
    "repetition_window": (1, 100_000),
    "no_repeat_ngram": (0, 1000),
}
# The functions of the page. Far beyond this temperature, probabilities are no longer finite.
FUNCTION_RANGES: dict[str, Range] = {"temperature": (0, 2), "top_p": (0.01, 1)}
# The useful range of each slider.
SLIDER_RANGES: dict[str, Range] = {
    "temperature": (0, 2),
    "top_p": (0.01, 1),
    "top_k": (0, 200),
    "min_p": (0, 0.5),
    "typical_p": (0.01, 1),
    "repetition_penalty": (1, 2),
    "presence_penalty": (0, 2),
    "frequency_penalty": (0, 2),
    "repetition_window": (1, 512),
    "no_repeat_ngram": (0, 50),
}


def range_of(name: str, narrower: Mapping[str, Range]) -> Range:
    """The range of a sampling setting: from `narrower` if listed there, else that of SamplingConfig.

    An exclusive bound counts as inclusive: 0 for a `top_p` that must be greater than 0.
    """
    if name in narrower:
        return narrower[name]
    rule = SETTINGS[name].rule
    low = rule.minimum if rule.above is None else rule.above
    return -math.inf if low is None else low, math.inf if rule.maximum is None else rule.maximum


def describe(bounds: Range) -> str:
    """A range in words: 'from 0 to 2', 'at least 0'."""
    low, high = bounds
    return f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
