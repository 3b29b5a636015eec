"""Whether a value from JSON has the type of an annotation, such as `dict[str, int | None]`"""

from __future__ import annotations

import math
from functools import partial
from types import UnionType
from typing import Any, get_args, get_origin


def has_type(value: Any, kind: Any, minimum: float = -math.inf, largest_int: float = math.inf) -> bool:
    """Whether a value from JSON has the type `kind`: Any, a class, or a list, dict or union of such types.

    An int is also a float; a bool is neither. No number may be less than `minimum`, except for NaN, and no
    int greater than `largest_int`.
    """
    fits = partial(has_type, minimum=minimum, largest_int=largest_int)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is UnionType:
        return any(fits(value, each) for each in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, (int, float)) and not value < minimum
    if kind is int:
        return isinstance(value, int) and minimum <= value <= largest_int
    return isinstance(value, kind)
