"""Splits sentences into the regions of a reading-time study."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from lm.errors import UserError

# The scripts of Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese, with their punctuation.
_SPACELESS = (
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
_MARKS = r"[^\w\s]{0,2}"  # punctuation that other scripts share, such as curly quotes
_NO_SPACE_AFTER = re.compile(f"{_SPACELESS}{_MARKS}$")
_NO_SPACE_BEFORE = re.compile(_MARKS + _SPACELESS)


def split_marked(text: str, separator: str) -> tuple[str, list[int]]:
    """The sentence without its separators, and the offset in it at which each region starts.

    Of the whitespace around a separator, only that on its left is kept, or that on its right if there is none
    on its left. If no separator of the sentence has whitespace on a side, each is replaced with a space,
    except next to a character of a script that is written without spaces. Regions of whitespace only are left
    out.
    """
    parts = text.split(separator)
    spaced = any(a[-1:].isspace() or b[:1].isspace() for a, b in pairwise(parts))
    sentence, starts = "", []
    for part in parts:
        if sentence and sentence[-1].isspace():
            part = part.lstrip()
        elif sentence and part.strip() and not spaced and not _written_together(sentence, part):
            sentence += " "
        if part.strip():
            starts.append(len(sentence) + len(part) - len(part.lstrip()))
        sentence += part
    return sentence, starts


def _written_together(before: str, after: str) -> bool:
    """Whether there is no space between two parts of a sentence, because of the script of one of them."""
    return bool(_NO_SPACE_AFTER.search(before[-3:]) or _NO_SPACE_BEFORE.match(after))


def locate(text: str, regions: Any, separator: str) -> list[int] | None:
    """The offset in a sentence at which each of its `regions` starts: a list of texts, or one text with a
    separator between them. None if these, whitespace aside, are not the sentence."""
    parts = regions.split(separator) if isinstance(regions, str) else regions
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return None
    at, starts = 0, []
    for part in filter(None, map(str.strip, parts)):
        at += len(text) - at - len(text[at:].lstrip())
        pattern = r"\s+".join(map(re.escape, part.split()))
        if not (found := re.compile(pattern).match(text, at)):
            return None
        starts.append(at)
        at = found.end()
    return None if text[at:].strip() or not starts else starts


def check_separator(separator: str) -> str:
    """The separator. Raises UserError if it is not a single visible character."""
    if len(separator) != 1 or separator.isspace():
        raise UserError(f"--region-separator must be one character other than a space, got {separator!r}.")
    return separator
