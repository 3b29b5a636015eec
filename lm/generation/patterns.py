"""Regular expressions for --match: as grammars of llguidance, and what is wrong with one, in one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lm.errors import UserError, one_line

if TYPE_CHECKING:
    from llguidance import LLParserLimits

# A state takes one or two kilobytes. 14,000 units of fuel take about a millisecond, or up to three while a
# pattern is compiled into an automaton.
_MAX_STATES, _FUEL, _FUEL_PER_MASK = 100_000, 100_000, 100_000
_SHOWN = 80  # characters of a pattern in an error


def limits() -> LLParserLimits:
    """What a pattern may cost; one that costs more is too complex."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_lexer_states=_MAX_STATES, initial_lexer_fuel=_FUEL, step_lexer_fuel=_FUEL_PER_MASK
    )


def grammar_of(pattern: str, leading_space: bool) -> str:
    """The grammar of llguidance for a pattern, optionally after a space that may be missing. Raises UserError
    for some of the patterns that are not valid; creating the matcher finds the others."""
    from llguidance import LLMatcher, regex_to_lark

    if re.search("[\ud800-\udfff]", pattern):
        raise _error(pattern, "it contains half of a character (a surrogate)")
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:  # llguidance would leave it out
        raise _error(pattern, r"it ends with a backslash; write \\ for a backslash")
    if not leading_space:
        return LLMatcher.grammar_from_regex(pattern)
    if report := LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern), limits=limits()):
        raise explain(pattern, report)
    # Not a regular expression that starts with " ?": a ^ after it would be within the text.
    return LLMatcher.grammar_from_lark(f'start: TEXT\nTEXT: " "? /{regex_to_lark(pattern)}/')


def explain(pattern: str, report: str) -> UserError:
    """The error for a pattern that llguidance has rejected with this `report`, which has many lines: what is
    wrong and at which character."""
    problem = re.search(r"^error: (.+)", report, re.MULTILINE)
    if problem and "regex parse error:\n" in report:
        marks = report.partition("regex parse error:\n")[2].split("\n")[1]
        return _error(pattern, f"{one_line(problem[1], 100)} ({_place(pattern, marks)})")
    if around := re.search(r"lookarounds not supported yet; (\w+)", report):
        if around[1].startswith("Word"):  # as in WordUnicode and WordStartHalfAscii
            return _error(
                pattern, r"\b and \B are not supported; write the characters around the word, such as a space"
            )
        return _error(pattern, r"^ and $ within a text are not supported; write \n for a line break")
    if "NoExtensionBias" in report:
        return _error(pattern, "no text matches it")
    return _error(pattern, "it is too complex; use fewer or smaller repetitions")


def _error(pattern: str, reason: str) -> UserError:
    return UserError(f"cannot use the pattern {pattern[:_SHOWN]!r}: {reason}.")


def _place(pattern: str, marks: str) -> str:
    """Where `marks`, the line below the pattern in a report, has its last row of ^."""
    column = marks.rstrip().rfind(" ") + 1 - 4  # a report indents by 4
    # A report shows these characters as two, with a backslash.
    width, escaped = 0, False
    for position, character in enumerate(pattern, start=1):
        width += 2 if character in "\n\t\r/" and not escaped else 1
        escaped = character == "\\" and not escaped
        if width > column:
            return f"at character {position}"
    return "at its end"
