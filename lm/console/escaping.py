"""Makes control characters visible, so that generated text cannot control a terminal or break a table."""

from __future__ import annotations

import re

# Unicode has a picture of every ASCII control character, but not of the later ones.
_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "\u2421"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CONTROLS = {picture: control for control, picture in _PICTURES.items()}
# Includes whitespace, which a table reader may strip, and bytes that form no character.
_HIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f\udc80-\udcff]|\s")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", " ": "\\s"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(.))")
_LONG = {short[1]: hidden for hidden, short in _SHORT.items()}


def printable(text: str) -> str:
    """`text` with visible control characters: '\\x1b' -> '␛'. Windows line ends become "\\n".

    CONTROLS maps the pictures back to the characters.
    """
    return _CONTROL.sub(lambda match: _PICTURES.get(match[0], "\ufffd"), text.replace("\r\n", "\n"))


def escaped(part: bytes) -> str:
    """A part of a UTF-8 text as a single visible word, which `unescaped` reverses.

    ' a\\n' -> '\\sa\\n', a byte of a partial character -> '\\xe4', any other whitespace or control
    character -> '\\u00a0'.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _SHORT.get(match[0]) or (f"\\x{code - 0xDC00:x}" if code >= 0xDC80 else f"\\u{code:04x}")

    return _HIDDEN.sub(escape, part.decode("utf-8", "surrogateescape"))


def unescaped(text: str) -> bytes:
    """The bytes that `escaped` turned into `text`."""

    def unescape(match: re.Match[str]) -> str:
        byte, code, short = match.groups()
        return chr(0xDC00 + int(byte, 16)) if byte else chr(int(code, 16)) if code else _LONG[short]

    return _ESCAPE.sub(unescape, text).encode("utf-8", "surrogateescape")
