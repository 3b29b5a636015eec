"""The ranges of SamplingConfig's settings in the API and the web UI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

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


class Slider(NamedTuple):
    """The useful range of a setting, and the step of its slider."""

    low: float
    high: float
    step: float


SLIDERS = {
    "temperature": Slider(0, 2, 0.05),
    "top_p": Slider(0.01, 1, 0.01),
    "top_k": Slider(0, 200, 1),
    "min_p": Slider(0, 0.5, 0.01),
    "typical_p": Slider(0.01, 1, 0.01),
    "repetition_penalty": Slider(1, 2, 0.05),
    "presence_penalty": Slider(0, 2, 0.1),
    "frequency_penalty": Slider(0, 2, 0.1),
    "repetition_window": Slider(1, 512, 1),
    "no_repeat_ngram": Slider(0, 50, 1),
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
