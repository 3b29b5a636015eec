"""Properties of a text at each of its characters, for units to be compared with.

Each is (characters,) bool, or float64 where it is a quantity. A mark that opens is inside and the one that
closes is outside, because a network that reads up to there can know just that.
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
from lm.insight import search

_PATIENCE = 2.0  # seconds for a pattern to be searched
_LONGEST_PATTERN = 1000  # characters
_TAB = 8  # columns between the stops
_VOWELS = frozenset("aeiouæøœаеиоуыэюяєіαεηιουω")
_PAIRS = {")": "(", "]": "[", "}": "{"}

# Quotes and comments of prose and of most programming languages, found together because each may hold the
# other's marks. What is never closed ends with the text, the paragraph, or is no quote; so no place is
# looked at again and again.
_QUOTES_AND_COMMENTS = re.compile(
    r"""
      \\.                                                     # an escaped mark is none
    | (?P<comment> (?<!\S)\#(?!include|define|undef|if|elif|else|endif|pragma|error)[^\n]*+
        | /\*(?:[^*]|\*(?!/))*+(?:\*/)? | <!--(?:[^-]|-(?!->))*+(?:-->)? )
    | (?:^|(?<=[;{},]))[ \t]*+(?P<line_comment>//[^\n]*+)      # elsewhere it divides
    | (?P<quote> \"{3}(?:\\.|[^\\"]|"(?!""))*+(?:\"{3})? | '{3}(?:\\.|[^\\']|'(?!''))*+(?:'{3})?
        | "(?:\\.|[^"\\\n]|\n(?![ \t]*\n))*+"                   # up to the paragraph's end
        | (?:(?<![^\W_])|(?<=\b[rbfuRBFU])|(?<=\b[rbfRBF]{2}))  # behind a letter it is an apostrophe
          '(?:\\.|[^'\\\n]|(?<=\w)'(?=\w)){0,1000}+'(?!\w)
        | “[^“”]*+”? | „[^„“”]*+[“”]? | «[^«»]*+»? | 「[^「」]*+」? | 『[^『』]*+』?
        | ‘(?:[^‘’]|’(?=\w))*+’? )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_CLOSING_QUOTES = "\"'”“»」』’"


def quotes(text: str) -> np.ndarray:
    """Inside quotation marks or a string of a program."""
    return _quoted_or_comment(text, ("quote",), _CLOSING_QUOTES)


def comments(text: str) -> np.ndarray:
    """Inside a comment of a program: #, //, /* */, <!-- -->."""
    return _quoted_or_comment(text, ("comment", "line_comment"), "/>")


def bracket_depth(text: str) -> np.ndarray:
    """Inside how many pairs of round, square and curly brackets. One without its other counts for none."""
    changes, open_, count = np.zeros(len(text)), [], dict.fromkeys(_PAIRS.values(), 0)
    for match in re.finditer(r"[()\[\]{}]", text):
        bracket, place = match[0], match.start()
        if bracket not in _PAIRS:
            open_.append((bracket, place))
            count[bracket] += 1
        elif count[_PAIRS[bracket]]:
            # It passes over those of other kinds that were never closed.
            opened = None
            while opened != _PAIRS[bracket]:
                opened, begin = open_.pop()
                count[opened] -= 1
            changes[begin] += 1
            changes[place] -= 1
    return np.cumsum(changes)


def brackets(text: str) -> np.ndarray:
    """Inside brackets of any kind."""
    return bracket_depth(text) > 0


def line_position(text: str) -> np.ndarray:
    """How many characters of the line have been read; at its end 0."""
    places = np.arange(len(text))
    ends = np.where(_are(text, "\n".__eq__), places, -1)
    return (places - np.maximum.accumulate(ends)).astype(np.float64)


def indentation(text: str) -> np.ndarray:
    """The columns of white space at the line's beginning, as far as they have been read."""
    depths = []
    for line in text.split("\n"):
        column = 0
        for character in line[: len(line) - len(line.lstrip(" \t"))]:
            column += 1 if character == " " else _TAB - column % _TAB
            depths.append(column)
        depths += [column] * (len(line) - len(line[: len(line) - len(line.lstrip(" \t"))]))
        depths.append(0)  # of the line's end
    return np.array(depths[:-1], np.float64)


def word_position(text: str) -> np.ndarray:
    """How many characters of the word have been read; outside of words 0."""
    outside = ~_are(text, lambda character: character.isalnum() or character == "_")
    places = np.arange(len(text))
    return (places - np.maximum.accumulate(np.where(outside, places, -1))).astype(np.float64)


def vowels(text: str) -> np.ndarray:
    """Vowels of the Latin, Cyrillic and Greek alphabets, accented or not."""
    return _are(text, lambda character: unicodedata.normalize("NFD", character.lower())[0] in _VOWELS)


def digits(text: str) -> np.ndarray:
    """Digits."""
    return _are(text, str.isdigit)


def upper_case(text: str) -> np.ndarray:
    """Capital letters."""
    return _are(text, str.isupper)


def white_space(text: str) -> np.ndarray:
    """Spaces, tabs and ends of lines."""
    return _are(text, str.isspace)


def punctuation(text: str) -> np.ndarray:
    """What is neither a letter, a digit nor white space."""
    return _are(text, lambda character: not (character.isalnum() or character.isspace()))


PROPERTIES: dict[str, Callable[[str], np.ndarray]] = {
    function.__name__: function
    for function in (
        quotes, brackets, comments, line_position, indentation, bracket_depth, word_position,
        vowels, digits, upper_case, white_space, punctuation,
    )
}  # fmt: skip


def matching(text: str, pattern: str) -> np.ndarray:
    """Inside a match of a regular expression in Python's syntax; ^ and $ stand for the ends of lines.

    Raises UserError for a pattern that cannot be read, and for one that takes too long.
    """
    if not pattern:
        raise UserError("the pattern is empty: write a regular expression, such as [0-9]+.")
    if len(pattern) > _LONGEST_PATTERN:
        raise UserError(f"the pattern is longer than {_LONGEST_PATTERN} characters: write a shorter one.")
    shown = repr(pattern if len(pattern) <= 80 else pattern[:79] + "…")
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", str(Path(search.__file__))],
            input=json.dumps({"pattern": pattern, "text": text}).encode(),
            capture_output=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the pattern {shown} takes too long on this text: write it without a repetition inside another."
        ) from error
    if found.returncode == 3:
        raise UserError(f"the pattern {shown} cannot be read: {one_line(found.stdout.decode())}.")
    if found.returncode:
        raise UserError(f"the pattern {shown} takes more memory or time than it may: write a simpler one.")
    inside = np.zeros(len(text), bool)
    for start, end in json.loads(found.stdout):
        inside[start:end] = True
    return inside


def _are(text: str, has: Callable[[str], bool]) -> np.ndarray:
    """Which characters (characters,) have a property, asked once for each different one."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    different, which = np.unique(points, return_inverse=True)
    return np.array([has(chr(point)) for point in different.tolist()], bool)[which]


def _quoted_or_comment(text: str, kinds: Sequence[str], closing: str) -> np.ndarray:
    inside = np.zeros(len(text), bool)
    for match in _QUOTES_AND_COMMENTS.finditer(text):
        for start, end in map(match.span, kinds):
            if start >= 0:
                inside[start : end - (text[end - 1] in closing and end - start > 1)] = True
    return inside
