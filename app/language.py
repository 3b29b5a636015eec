"""The page in English and in Chinese.

English sentences stand in the code and are their own keys; app/languages/*.json has the Chinese ones, a file
for each tab. What is laid out once is a `label`, which the browser shows in its own language; what is said to
a person who asks for something is `said`, in the language of that person's browser.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext
from gradio.i18n import I18nData

_FOLDER = Path(__file__).parent / "languages"


@cache
def chinese() -> dict[str, str]:
    """English -> Chinese."""
    files = sorted(_FOLDER.glob("*.json"))
    return {e: z for file in files for e, z in json.loads(file.read_text("utf-8")).items()}


def label(english: str) -> I18nData:
    """A text of the page, in the language of whichever browser shows it. Raises KeyError if it has not
    been translated."""
    if english not in chinese():
        raise KeyError(f"app/languages has no Chinese for {english!r}")
    return I18nData(_key(english))


def said(english: str, **values: object) -> str:
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
