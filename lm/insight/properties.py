"""Properties of each character of a text, to compare units with.

Each property is (characters,) bool, or float64 for a quantity. An opening mark counts as inside and a closing
mark as outside: after reading it, the network knows that it is now inside or outside.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lm.errors import UserError, one_line
from lm.insight import regex_search

_TIME_LIMIT = 2.0  # seconds to search for a pattern
_MAX_PATTERN = 1000  # characters
_TAB_WIDTH = 8  # columns
_VOWELS = frozenset("aeiouæøœаеиоуыэюяєіαεηιουω")
_PAIRS = {")": "(", "]": "[", "}": "{"}

# Quotes and comments in prose and most programming languages, in one pattern because each may contain the
# other's marks. An unclosed one ends with the text or the paragraph, or is not a quote. Thanks to possessive
# quantifiers, the search is linear in the length of the text.
_QUOTES_AND_COMMENTS = re.compile(
    r"""
      \\.                                                     # escaped marks do not count
    | (?P<comment> (?<!\S)\#(?!include|define|undef|if|elif|else|endif|pragma|error)[^\n]*+
        | /\*(?:[^*]|\*(?!/))*+(?:\*/)? | <!--(?:[^-]|-(?!->))*+(?:-->)? )
    | (?:^|(?<=[;{},]))[ \t]*+(?P<line_comment>//[^\n]*+)      # elsewhere it is a division
    | (?P<quote> \"{3}(?:\\.|[^\\"]|"(?!""))*+(?:\"{3})? | '{3}(?:\\.|[^\\']|'(?!''))*+(?:'{3})?
        | "(?:\\.|[^"\\\n]|\n(?![ \t]*\n))*+"                   # not across paragraphs
        | (?:(?<![^\W_])|(?<=\b[rbfuRBFU])|(?<=\b[rbfRBF]{2}))  # after a letter it is an apostrophe
          '(?:\\.|[^'\\\n]|(?<=\w)'(?=\w)){0,1000}+'(?!\w)
        | “[^“”]*+”? | „[^„“”]*+[“”]? | «[^«»]*+»? | 「[^「」]*+」? | 『[^『』]*+』?
        | ‘(?:[^‘’]|’(?=\w))*+’? )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_CLOSING_QUOTES = "\"'”“»」』’"


def quotes(text: str) -> np.ndarray:
    """Inside quotation marks or a string literal."""
    return _quoted_or_comment(text, ("quote",), _CLOSING_QUOTES)


def comments(text: str) -> np.ndarray:
    """Inside a comment in a program: #, //, /* */, <!-- -->."""
    return _quoted_or_comment(text, ("comment", "line_comment"), "/>")


def bracket_depth(text: str) -> np.ndarray:
    """The number of enclosing pairs of (), [] and {}. Unmatched brackets do not count."""
    changes = np.zeros(len(text))
    unclosed: list[tuple[str, int]] = []
    count = dict.fromkeys(_PAIRS.values(), 0)
    for match in re.finditer(r"[()\[\]{}]", text):
        bracket, end = match[0], match.start()
        if bracket not in _PAIRS:
            unclosed.append((bracket, end))
            count[bracket] += 1
        elif count[_PAIRS[bracket]]:
            # Skip brackets of other kinds: they are never closed.
            opening = None
            while opening != _PAIRS[bracket]:
                opening, begin = unclosed.pop()
                count[opening] -= 1
            changes[begin] += 1
            changes[end] -= 1
    return np.cumsum(changes)


def brackets(text: str) -> np.ndarray:
    """Inside brackets of any kind."""
    return bracket_depth(text) > 0


def line_position(text: str) -> np.ndarray:
    """The number of characters of the line read so far; 0 at its end."""
    indices = np.arange(len(text))
    ends = np.where(_where(text, "\n".__eq__), indices, -1)
    return (indices - np.maximum.accumulate(ends)).astype(np.float64)


def indentation(text: str) -> np.ndarray:
    """The width of the whitespace at the start of the line read so far, in columns; 0 at its end."""
    columns: list[int] = []
    for line in text.split("\n"):
        rest, column = line.lstrip(" \t"), 0
        for character in line[: len(line) - len(rest)]:
            column += 1 if character == " " else _TAB_WIDTH - column % _TAB_WIDTH
            columns.append(column)
        columns += [column] * len(rest)
        columns.append(0)  # the newline
    return np.array(columns[:-1], np.float64)


def word_position(text: str) -> np.ndarray:
    """The number of characters of the word read so far; 0 outside words."""
    outside = ~_where(text, lambda character: character.isalnum() or character == "_")
    indices = np.arange(len(text))
    return (indices - np.maximum.accumulate(np.where(outside, indices, -1))).astype(np.float64)


def vowels(text: str) -> np.ndarray:
    """Latin, Cyrillic and Greek vowels, accented or not."""
    return _where(text, lambda character: unicodedata.normalize("NFD", character.lower())[0] in _VOWELS)


def digits(text: str) -> np.ndarray:
    """Digits."""
    return _where(text, str.isdigit)


def upper_case(text: str) -> np.ndarray:
    """Capital letters."""
    return _where(text, str.isupper)


def white_space(text: str) -> np.ndarray:
    """Spaces, tabs and newlines."""
    return _where(text, str.isspace)


def punctuation(text: str) -> np.ndarray:
    """All characters except letters, digits and whitespace."""
    return _where(text, lambda character: not (character.isalnum() or character.isspace()))


PROPERTIES: dict[str, Callable[[str], np.ndarray]] = {
    function.__name__: function
    for function in (
        quotes,
        brackets,
        comments,
        line_position,
        indentation,
        bracket_depth,
        word_position,
        vowels,
        digits,
        upper_case,
        white_space,
        punctuation,
    )
}


def matching(text: str, pattern: str) -> np.ndarray:
    """Inside a match of a regular expression in Python's syntax, where ^ and $ match at line boundaries.

    Raises UserError if the pattern is invalid or takes too long.
    """
    if not pattern:
        raise UserError("the pattern is empty: enter a regular expression, such as [0-9]+.")
    if len(pattern) > _MAX_PATTERN:
        raise UserError(f"the pattern has more than {_MAX_PATTERN} characters: shorten it.")
    shown = repr(pattern if len(pattern) <= 80 else pattern[:79] + "…")
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", str(Path(regex_search.__file__))],
            input=json.dumps({"pattern": pattern, "text": text}).encode(),
            capture_output=True,
            timeout=_TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the pattern {shown} takes too long on this text: avoid nested repetitions such as (a+)+."
        ) from error
    if found.returncode == 3:
        raise UserError(f"the pattern {shown} is invalid: {one_line(found.stdout.decode())}.")
    if found.returncode:
        raise UserError(f"the pattern {shown} takes too much memory or time: simplify it.")
    inside = np.zeros(len(text), bool)
    for start, end in json.loads(found.stdout):
        inside[start:end] = True
    return inside


def _where(text: str, condition: Callable[[str], bool]) -> np.ndarray:
    """Which characters (characters,) meet a condition, which is evaluated once per distinct character."""
    code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct, index = np.unique(code_points, return_inverse=True)
    return np.array([condition(chr(point)) for point in distinct.tolist()], bool)[index]


def _quoted_or_comment(text: str, kinds: Sequence[str], closing: str) -> np.ndarray:
    inside = np.zeros(len(text), bool)
    for match in _QUOTES_AND_COMMENTS.finditer(text):
        for start, end in map(match.span, kinds):
            if start >= 0:
                inside[start : end - (text[end - 1] in closing and end - start > 1)] = True
    return inside
