"""`--document-separator`: splits plain text into documents, in constant memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm.data.values import with_line_feeds
from lm.errors import UserError
from lm.tokenization.documents import SEPARATOR

_BLANK = b" \t\n"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:([ntr\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")


def check_separator(name: str) -> None:
    """Raise UserError if `name` is not a document separator."""
    if not name:
        raise UserError("--document-separator must be a string, blank-line or line; leave it out for none.")
    try:
        _unescape(name).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            "--document-separator is not UTF-8, or has half of a surrogate pair: write the character itself."
        ) from error


def separated(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    r"""Text that comes in blocks of UTF-8, with SEPARATOR in place of what separates its documents.

    `name` is "line" (each line is a document), "blank-line" (one or more of them), or a string, in which \n,
    \t, \\, \x41 and \u4e2d are escapes. There may be several SEPARATORs next to each other.
    """
    if name == "blank-line":
        return _at_blank_lines(blocks)
    text = "\n" if name == "line" else _unescape(name)
    # As the line breaks of the text, see lm/data/decoding.py.
    text = with_line_feeds(text)
    return _at(blocks, text.encode())


def without_empty(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Documents that come in blocks, with exactly one SEPARATOR between those that are not empty."""
    started = pending = False
    for block in blocks:
        kept = block.strip(SEPARATOR)
        if not kept:
            pending = pending or bool(block)
            continue
        before = SEPARATOR if started and (pending or block.startswith(SEPARATOR)) else b""
        yield before + (re.sub(SEPARATOR + b"+", SEPARATOR, kept) if SEPARATOR in kept else kept)
        started, pending = True, block.endswith(SEPARATOR)


def _unescape(name: str) -> str:
    """The separator without escapes; two that are a surrogate pair are one character."""
    text = _ESCAPE.sub(_unescaped, name)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _unescaped(match: re.Match[str]) -> str:
    letter, byte, code = match.groups()
    return _ESCAPES[letter] if letter else chr(int(byte or code, 16))


def _at(blocks: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    """Replace a separator, which may cross the borders of blocks."""
    carried = b""
    for block in blocks:
        *before, last = (carried + block).split(separator)
        end = len(last) - _overlap(last, separator)
        carried = last[end:]
        yield SEPARATOR.join([*before, last[:end]])
    yield carried


def _overlap(text: bytes, separator: bytes) -> int:
    """The length of the longest proper prefix of the separator that the text ends with."""
    longest = min(len(separator) - 1, len(text))
    return next(n for n in range(longest, -1, -1) if text.endswith(separator[:n]))


def _at_blank_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Replace runs of blank lines, and drop those at both ends of the text."""
    carried, started = b"", False
    for block in blocks:
        text = carried + block
        end = len(text.rstrip(_BLANK))
        if not end:  # blank so far, and the next line may be indented
            carried = text[text.rfind(b"\n") + 1 :] if not started else text
            continue
        if not started:
            text = text[text.rfind(b"\n", 0, len(text) - len(text.lstrip(_BLANK))) + 1 :]
            end = len(text.rstrip(_BLANK))
            started = True
        end = text.find(b"\n", end) if b"\n" in text[end:] else len(text)
        carried = text[end:]  # more blank lines may follow
        yield re.sub(rb"\n(?:[ \t]*\n)+", SEPARATOR, text[:end])
    if started:  # a block may end among the spaces at the end of the last line
        yield carried.partition(b"\n")[0]
