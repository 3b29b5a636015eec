"""How a setting is declared, checked and converted; the settings themselves are in lm/config/schema.py."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from lm.errors import UserError

Auto = typing.Literal["auto"]  # a value that is chosen by the data and the budget
ValueType = tuple[type, tuple[str | None, ...]]
_WORDS = {None: type(None), "auto": Auto}  # what may stand in a value's place, and its type


def setting(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    positive: bool = False,
    parse: typing.Callable[[str], Any] | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that carries its help line and its range."""
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": tuple(choices) if choices else None,
            "minimum": minimum,
            "below": below,
            "maximum": maximum,
            "positive": positive,
            "parse": parse,
            "metavar": metavar,
        },
    )


def parse_duration(text: str | float) -> float:
    """Seconds in '90s', '10m', '2h', '1h30m' or a plain number of seconds."""
    if isinstance(text, (int, float)):
        return float(text)
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip().lower())
    try:
        parts = [float(part or 0) for part in match.groups()]
        seconds = parts[0] * 3600 + parts[1] * 60 + parts[2]
    except (AttributeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise UserError(f"'{text}' is not a length of time: write it like 90s, 10m or 2h.")
    return seconds


def parse_mix(text: str | Iterable[float]) -> tuple[float, ...]:
    """Shares that sum to one in '0.7,0.3' or in a list of numbers."""
    try:
        shares = tuple(map(float, text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError):
        raise UserError(f"--mix takes shares such as 0.7,0.3, not '{text}'.") from None
    if not all(0 < share <= 1 for share in shares):
        raise UserError(f"each share of --mix lies above 0 and at most at 1, not so in '{text}'.")
    if abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"the shares of --mix must sum to 1; {text} sums to {sum(shares):g}.")
    return shares


def parse_temperature(value: str | float | Iterable[float]) -> float | tuple[float, float]:
    """0.8, or (0.3, 1.0) in '0.3:1.0' or two numbers: from the first token to the last."""
    try:
        parts = value.split(":") if isinstance(value, str) else value
        numbers = [float(part) for part in (parts if isinstance(parts, (list, tuple)) else [parts])]
        if not 1 <= len(numbers) <= 2 or isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(f"--temperature takes a number, or two such as 0.3:1.0, not '{value}'.") from None
    if not all(0 <= number < float("inf") for number in numbers):
        raise UserError(f"--temperature must be at least 0 and finite, not {value}.")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def settings_of(config_class: type) -> dict[str, dataclasses.Field]:
    """The settings of a class above by name."""
    return {f.name: f for f in dataclasses.fields(config_class)}


def flag_of(name: str) -> str:
    """'hidden_size' -> '--hidden-size'."""
    return "--" + name.replace("_", "-")


def build(config_class: type, values: Mapping[str, Any]) -> Any:
    """An instance of `config_class` with each value of `values` converted and checked."""
    kinds, settings = value_types(config_class), settings_of(config_class)
    for name in values:
        if name not in settings:
            raise UserError(f"there is no setting '{name}'{did_you_mean(name, settings)}.")
    return config_class(**{n: check(settings[n], kinds[n], value) for n, value in values.items()})


def value_types(config_class: type) -> dict[str, ValueType]:
    """For each setting the type of its value and the words that may stand in its place."""
    result = {}
    for name, hint in typing.get_type_hints(config_class).items():
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        options = set(typing.get_args(hint)) if union else {hint}
        words = tuple(word for word, option in _WORDS.items() if option in options)
        kind, *others = options - set(_WORDS.values())
        # Of several kinds: whatever the setting's `parse` makes.
        result[name] = (object if others else typing.get_origin(kind) or kind, words)
    return result


def check(setting: dataclasses.Field, kind: ValueType, value: Any) -> Any:
    """`value` as the setting's type. Raises UserError where it does not fit."""
    (wanted, words), rule, flag = kind, setting.metadata, flag_of(setting.name)
    if (value is None or isinstance(value, str)) and value in words:
        return value
    if rule["parse"]:
        value = rule["parse"](value)
    elif wanted is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values:
            raise UserError(f"{flag} needs at least one value.")
        return tuple(check(setting, (str, ()), one) for one in values)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f"{flag} takes {_A_KIND[wanted]}, not '{value}'.")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):  # bytes of no known meaning
        raise UserError(f"{flag} {value!r} is not UTF-8; it is written into files that are: rename it.")
    if rule["choices"] and value not in rule["choices"]:
        raise UserError(f"{flag} is one of {', '.join(rule['choices'])}, not '{value}'.")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise UserError(f"{flag} must be a finite number, not {value}.")
    if rule["minimum"] is not None and value < rule["minimum"]:
        raise UserError(f"{flag} must be at least {rule['minimum']}, not {value}.")
    if rule["below"] is not None and value >= rule["below"]:
        raise UserError(f"{flag} must be below {rule['below']}, not {value}.")
    if rule["maximum"] is not None and value > rule["maximum"]:
        raise UserError(f"{flag} must be at most {rule['maximum']}, not {value}.")
    if rule["positive"] and value <= 0:
        raise UserError(f"{flag} must be above 0, not {value}.")
    return value


_A_KIND = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple: "several values",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
