"""Control characters made visible: a model may write them, but must not steer a terminal with them."""

from __future__ import annotations

import re

# Unicode has a picture of every control character of ASCII, and none of the later ones.
_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "\u2421"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CONTROLS = {picture: control for control, picture in _PICTURES.items()}


def printable(text: str) -> str:
    """`text` as it can be shown: '\\x1b' -> '␛', which CONTROLS takes back. The line ends of Windows
    are line ends."""
    return _CONTROL.sub(lambda match: _PICTURES.get(match[0], "\ufffd"), text.replace("\r\n", "\n"))
