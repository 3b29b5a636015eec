"""The page in English and Chinese.

The English texts are in the code and serve as keys; translations/*.json has the Chinese, one file per tab.
`localized` marks a text that is laid out once and shown in the browser's language. `translate` translates a
message for the user who made the current request.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext
from gradio.i18n import I18nData

_FOLDER = Path(__file__).parent / "translations"


@cache
def chinese() -> dict[str, str]:
    """English -> Chinese."""
    files = sorted(_FOLDER.glob("*.json"))
    return {e: z for file in files for e, z in json.loads(file.read_text("utf-8")).items()}


def localized(english: str) -> I18nData:
    """A text of the page, in the language of whichever browser shows it. Raises KeyError if it has not
    been translated."""
    if english not in chinese():
        raise KeyError(f"app/ui/translations has no Chinese for {english!r}")
    return I18nData(_key(english))


def translate(english: str, **values: object) -> str:
    """A text for the person who asks now, with `values` put in as by `str.format`. Raises KeyError if it
    has not been translated."""
    translated = chinese()[english]
    return (translated if _asked_in_chinese() else english).format(**values)


def translations() -> gr.I18n:
    """What the browser is told, for `launch(i18n=...)`."""
    return gr.I18n(en={_key(e): e for e in chinese()}, zh={_key(e): z for e, z in chinese().items()})


def _asked_in_chinese() -> bool:
    request = LocalContext.request.get(None)
    languages = request.headers.get("accept-language", "") if request else ""
    return languages.lower().startswith("zh")


def _key(english: str) -> str:
    """A name without the dots and braces that the browser's side would read as paths and arguments."""
    return f"t{zlib.crc32(english.encode()):08x}"
