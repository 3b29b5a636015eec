"""Control characters made visible: a model may write them, but must not steer a terminal with them,
nor break a table."""

from __future__ import annotations

import re

# Unicode has a picture of every control character of ASCII, and none of the later ones.
_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "\u2421"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CONTROLS = {picture: control for control, picture in _PICTURES.items()}
# Also white space, which a table's reader may strip, and bytes that are no character by themselves.
_HIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f\udc80-\udcff]|\s")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", " ": "\\s"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(.))")
_LONG = {short[1]: hidden for hidden, short in _SHORT.items()}


def printable(text: str) -> str:
    """`text` as it can be shown: '\\x1b' -> '␛', which CONTROLS takes back. The line ends of Windows
    are line ends."""
    return _CONTROL.sub(lambda match: _PICTURES.get(match[0], "\ufffd"), text.replace("\r\n", "\n"))


def escaped(part: bytes) -> str:
    """Part of a text in UTF-8 as one visible word: ' a\\n' -> '\\sa\\n', half a character -> '\\xe4',
    other white space and control characters -> '\\u00a0'. `unescaped` takes it back."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _SHORT.get(match[0]) or (f"\\x{code - 0xDC00:x}" if code >= 0xDC80 else f"\\u{code:04x}")

    return _HIDDEN.sub(escape, part.decode("utf-8", "surrogateescape"))


def unescaped(text: str) -> bytes:
    """What `escaped` made `text` of."""

    def take_back(match: re.Match[str]) -> str:
        byte, code, short = match.groups()
        return chr(0xDC00 + int(byte, 16)) if byte else chr(int(code, 16)) if code else _LONG[short]

    return _ESCAPE.sub(take_back, text).encode("utf-8", "surrogateescape")
