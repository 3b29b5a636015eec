"""The narrower ranges of the API, the functions and the sliders agree with SamplingConfig."""

import math

import pytest

from app.sampling import (
    API_RANGES,
    FUNCTION_RANGES,
    SETTINGS,
    SLIDERS,
    describe,
    range_of,
)
from lm.config.schema import SamplingConfig
from lm.config.settings import build

TABLES = {
    "API": API_RANGES,
    "functions": FUNCTION_RANGES,
    "sliders": {name: slider[:2] for name, slider in SLIDERS.items()},
}
RANGES = [(where, name) for where, table in TABLES.items() for name in table]


@pytest.mark.parametrize(("where", "name"), RANGES)
def test_listed_ranges_are_narrower_than_those_of_the_library(where, name):
    low, high = TABLES[where][name]
    assert -math.inf < low < high < math.inf
    assert (low, high) != range_of(name, {}), "no need to list it"
    for value in (low, high):
        build(SamplingConfig, {name: value})


@pytest.mark.parametrize(("where", "name"), RANGES)
def test_defaults_are_in_range(where, name):
    low, high = TABLES[where][name]
    assert low <= SETTINGS[name].default <= high


def test_unlisted_ranges_are_those_of_the_library():
    assert range_of("min_p", API_RANGES) == (0, 1)
    assert range_of("top_p", API_RANGES) == (0, 1)  # SamplingConfig: (0, 1]
    assert range_of("top_k", FUNCTION_RANGES) == (0, math.inf)
    assert range_of("presence_penalty", {}) == (-1000, 1000)


def test_every_parameter_of_the_api_is_bounded():
    for name, setting in SETTINGS.items():
        if setting.type is not bool:
            assert all(map(math.isfinite, range_of(name, API_RANGES)))


def test_describe():
    assert describe((0.01, 1)) == "from 0.01 to 1" and describe((0, math.inf)) == "at least 0"
