"""The types of values from JSON."""

import math
from typing import Any

import pytest

from lm.files.json_types import has_type


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (int, [0, -5, 2**70], [True, 1.0, "1", None]),
        (float, [0, -1.5, math.nan, math.inf], [False, "1", None, []]),
        (bool, [True], [1, None]),
        (str, [""], [1, None]),
        (int | None, [None, 1], [1.5, "a"]),
        (list[str], [[], ["a"]], [["a", 1], "a", {}]),
        (dict[str, float | None], [{}, {"a": 1, "b": None}], [{"a": "b"}, [1]]),
        (dict[str, Any], [{"a": [1]}], [[]]),
    ],
)
def test_a_value_has_the_type_of_an_annotation(kind, right, wrong):
    assert all(has_type(value, kind) for value in right)
    assert not any(has_type(value, kind) for value in wrong)


def test_numbers_have_limits_also_inside_of_lists_and_objects():
    assert has_type({"a": [0, 3]}, dict[str, list[int]], minimum=0, largest_int=3)
    assert not has_type({"a": [0, -1]}, dict[str, list[int]], minimum=0)
    assert not has_type([4], list[int], largest_int=3)
    assert has_type([math.nan, 4], list[float], minimum=0, largest_int=3)
