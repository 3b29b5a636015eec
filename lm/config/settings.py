"""How a setting is declared, parsed and validated; the settings themselves are in lm/config/schema/."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import operator
import os
import re
import struct
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, TypeVar

from lm.console.wording import did_you_mean
from lm.errors import UserError

Auto = Literal["auto"]  # in place of a value that depends on the text and the budget
T = TypeVar("T")
MAX_TEMPERATURE = 1_000_000  # at which all tokens are equally likely
_LARGEST_INT = 2**63 - 1
_SHOWN = 80  # characters of a value in a message

# Free text, which may be empty. An empty document_separator has an error of its own.
_TEXTS = ("sample_prompt", "target_delimiter", "document_separator")

_KEYWORDS = {None: type(None), "auto": Auto}  # allowed in place of a value, with their types
_TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


@dataclass(frozen=True)
class Rule:
    """The help line and the valid values of a setting."""

    help: str
    choices: tuple[str, ...] = ()
    pattern: str = ""  # of the valid values, if `choices` only describes them
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive minimum
    below: float | None = None  # exclusive maximum
    parse: Callable[[Any], Any] | None = None
    metavar: str | None = None
    flag_help: str = ""  # appended to the help of the flag, for what only the command line accepts

    @property
    def lowest(self) -> float | None:
        """The lower bound, whether it is included or not."""
        return self.minimum if self.above is None else self.above

    @property
    def highest(self) -> float | None:
        """The upper bound, whether it is included or not."""
        return self.maximum if self.below is None else self.below

    @property
    def range(self) -> str:
        """The valid numbers in words: 'in [0, 1)', 'at least 1', 'greater than 0'."""
        if self.maximum is None and self.below is None:
            return f"at least {self.minimum}" if self.above is None else f"greater than {self.above}"
        low = f"[{self.minimum}" if self.above is None else f"({self.above}"
        high = f"{self.maximum}]" if self.below is None else f"{self.below})"
        return f"in {low}, {high}"

    def offers(self, value: Any) -> bool:
        """Whether `value` is one of the choices."""
        return bool(re.fullmatch(self.pattern, value)) if self.pattern else value in self.choices

    def contains(self, value: float) -> bool:
        """Whether `value` is within the bounds, also as the float32 that it becomes in computations."""
        if isinstance(value, float) and (rounded := _float32(value)) != value:
            return math.isfinite(rounded) and self.contains_exactly(rounded)
        return self.contains_exactly(value)

    def contains_exactly(self, value: float) -> bool:
        """Whether `value` itself is within the bounds."""
        return not (
            (self.minimum is not None and value < self.minimum)
            or (self.maximum is not None and value > self.maximum)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )


@dataclass(frozen=True)
class Setting:
    """A field of a settings class with its rule."""

    name: str
    default: Any
    type: type  # `object` if the values have several types
    keywords: tuple[str | None, ...]  # allowed in place of a value: "auto", None
    rule: Rule

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return flag_of(self.name)

    def check(self, value: Any) -> Any:
        """`value` converted to the type of the setting. Raises UserError if it is not valid."""
        if (value is None or isinstance(value, str)) and value in self.keywords:
            return value
        value = _plain(value)
        if self.rule.parse:
            value = self.rule.parse(value)
        elif self.type is tuple:
            values = value if isinstance(value, (list, tuple)) else [value]
            if not values:
                raise UserError(f"{self.flag} needs at least one value.")
            item = dataclasses.replace(self, type=str, keywords=())
            return tuple(item.check(one) for one in values)
        if self.type in (int, float) and isinstance(value, str):
            value = _number(value, self.type)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.type is float and number:
            value = _float(value)
        if self.type is str and number:
            value = str(value)
        if not isinstance(value, self.type) or (self.type is int and not number):
            expected = _TYPE_NAMES.get(self.type, "a list")
            got = f"'{shown(value)}'" if isinstance(value, str) else shown(value)
            raise UserError(f"{self.flag} must be {expected}, got {got}.")
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):  # undecodable bytes
            raise UserError(
                f"{self.flag} {value!r} is not UTF-8 and cannot be saved with the settings; rename it."
            )
        if isinstance(value, str) and "\0" in value and self.name not in _TEXTS:
            raise UserError(f"{self.flag} must not contain NUL characters.")
        if self.rule.choices and not self.rule.offers(value):
            choices = ", ".join(self.rule.choices)
            raise UserError(f"{self.flag} must be one of {choices}, got '{shown(value)}'.")
        if isinstance(value, float) and not math.isfinite(_float32(value)):
            size = "" if math.isinf(value) or math.isnan(value) else " as a 32-bit number"
            raise UserError(f"{self.flag} must be finite{size}, got {value}.")
        if isinstance(value, (int, float)) and not self.rule.contains(value):
            size = " as a 32-bit number" if self.rule.contains_exactly(value) else ""
            raise UserError(f"{self.flag} must be {self.rule.range}{size}, got {shown(value)}.")
        if isinstance(value, int) and value > _LARGEST_INT:
            raise UserError(f"{self.flag} must be at most {_LARGEST_INT}, got {shown(value)}.")
        return value


def setting(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    pattern: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    parse: Callable[[Any], Any] | None = None,
    metavar: str | None = None,
    flag_help: str = "",
) -> Any:
    """A dataclass field that carries its rule."""
    rule = Rule(help, tuple(choices), pattern, minimum, maximum, above, below, parse, metavar, flag_help)
    return dataclasses.field(default=default, metadata={"rule": rule})


def settings_of(config_class: type) -> Mapping[str, Setting]:
    """The settings that a class of lm/config/schema/ declares, by name."""
    hints = typing.get_type_hints(config_class)
    settings = {}
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        options = set(typing.get_args(hint)) if union else {hint}
        keywords = tuple(word for word, option in _KEYWORDS.items() if option in options)
        value_type, *others = options - set(_KEYWORDS.values())
        value_type = object if others else typing.get_origin(value_type) or value_type
        settings[field.name] = Setting(
            field.name, field.default, value_type, keywords, field.metadata["rule"]
        )
    return settings


def build(config_class: type[T], values: Mapping[str, Any]) -> T:
    """An instance of `config_class` from `values`; see `check_all`."""
    return config_class(**check_all(settings_of(config_class), values))


def check_all(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, each converted to the type of its setting. Raises UserError for an unknown name or an invalid
    value."""
    check_known(values, settings)
    return {name: settings[name].check(value) for name, value in values.items()}


def check_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError, which suggests a similar name, for a name that is not known."""
    for name in names:
        if name not in known:
            raise UserError(f"unknown setting '{name}'{did_you_mean(name, known)}")


def whole_number(name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int. Raises UserError unless it is a whole number of at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, got {value!r}.") from None
    if minimum is not None and number < minimum:
        raise UserError(f"{name} must be at least {minimum}, got {number}.")
    return number


def flag_of(name: str) -> str:
    """'hidden_size' -> '--hidden-size'."""
    return "--" + name.replace("_", "-")


def check_not_empty(options: Mapping[str, Any]) -> None:
    """Raise UserError if a flag has an empty string, or a list with one, where that means nothing."""
    for name, value in options.items():
        if (value == "" and name not in _TEXTS) or (isinstance(value, (list, tuple)) and "" in value):
            raise UserError(f"{flag_of(name)} must not be empty.")


def arguments(values: Mapping[str, Any]) -> list[str]:
    """The command-line arguments that give settings these values: ['--dataset', 'my.txt', '--no-header']."""
    found: list[str] = []
    for name, value in values.items():
        flag = flag_of(name)
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
            continue
        texts = list(value) if isinstance(value, list | tuple) else [value]
        if not all(isinstance(text, str) for text in texts):  # the numbers of --mix are one argument
            texts = [",".join(str(number).removesuffix(".0") for number in texts)]
        for text in texts:
            # What begins with a dash would be read as a flag.
            found += [f"{flag}={text}"] if text.startswith("-") and text != "-" else [flag, text]
    return found


def _plain(value: Any) -> Any:
    """A path as a string, and a number of NumPy or another library as one of Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (int, float)) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else _float(value)


def _float(value: SupportsFloat) -> float:
    """A number as a float; infinity if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _float32(value: float) -> float:
    """The nearest 32-bit number."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def shown(value: Any) -> str:
    """A value in a message, shortened: a table or another object of several lines is named by its type."""
    huge = isinstance(value, int) and value.bit_length() > 1000  # Python refuses to write out larger ones
    text = "a number with hundreds of digits" if huge else str(value)
    if not isinstance(value, str) and "\n" in text:
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _number(text: str, kind: type) -> Any:
    """The number that `text` is, or `text`."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        number = float(text)
        return int(number) if kind is int and number.is_integer() else number
    return text


def parse_duration(value: object) -> float:
    """Seconds in '90s', '10m', '2h', '1h30m' or a plain number of seconds. Raises UserError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _float(value)
    number = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"  # takes linear time also if it does not match
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", str(value).strip().lower())
    if not match or not any(match.groups()):
        raise UserError(f"--max-time must be a duration such as 90s, 10m or 2h, got '{shown(value)}'.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_mix(text: str | Iterable[float]) -> tuple[float, ...]:
    """Proportions that sum to one, from '0.7,0.3' or a list of numbers."""
    try:
        shares = tuple(map(float, text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"--mix must be a list of proportions such as 0.7,0.3, got '{shown(text)}'."
        ) from None
    if not all(0 < share <= 1 for share in shares):
        raise UserError(f"each proportion in --mix must be in (0, 1], got '{text}'.")
    if abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"the proportions in --mix must sum to 1; {text} sums to {sum(shares):g}.")
    return shares


def parse_temperature(value: str | float | Sequence[float]) -> float | tuple[float, float]:
    """A number, or first and last temperature of a ramp, from '0.3:1.0' or two numbers."""
    try:
        parts = value.split(":") if isinstance(value, str) else value
        numbers = list(map(float, parts if isinstance(parts, (list, tuple)) else [parts]))
        if not 1 <= len(numbers) <= 2 or isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"--temperature must be a number or a range such as 0.3:1.0, got '{shown(value)}'."
        ) from None
    if not all(0 <= number <= MAX_TEMPERATURE for number in numbers):
        raise UserError(f"--temperature must be at least 0 and at most {MAX_TEMPERATURE}, got {value}.")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
