"""The English and Chinese texts of the page.

The English texts are written in the code and serve as keys. translations/*.json holds the Chinese, one file
per tab or module, and browser.json for static/*.js. `localized` is for texts built into the page, which the
browser shows in its own language; `translate` is for messages that answer a request.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import gradio as gr
import starlette.requests
from gradio.context import LocalContext
from gradio.i18n import I18nData
from starlette.types import Scope

_FOLDER = Path(__file__).parent / "translations"


@cache
def chinese() -> dict[str, str]:
    """The translations: English -> Chinese."""
    files = sorted(_FOLDER.glob("*.json"))
    return {en: zh for file in files for en, zh in json.loads(file.read_text("utf-8")).items()}


def localized(english: str) -> I18nData:
    """A text that each browser shows in its own language. Raises KeyError if it has no translation."""
    if english not in chinese():
        raise KeyError(f"app/ui/translations has no Chinese for {english!r}")
    return I18nData(_key(english))


def translate(english: str, **values: object) -> str:
    """A text in the language of the current request, formatted with `values` as by `str.format`. Raises
    KeyError if it has no translation."""
    translated = chinese()[english]
    return (translated if in_chinese() else english).format(**values)


def translations() -> gr.I18n:
    """All texts in both languages, for `launch(i18n=...)`."""
    return gr.I18n(
        en={_key(en): en for en in chinese()},
        zh={_key(en): zh for en, zh in chinese().items()},
    )


def browser_script() -> str:
    """JavaScript that defines the Chinese of the texts in static/*.js, for `lm.translate`."""
    texts = json.loads((_FOLDER / "browser.json").read_text("utf-8"))
    return f"lm.chinese = {json.dumps(texts, ensure_ascii=False)};"


def answer_in_language_of(scope: Scope) -> None:
    """Let `translate` use the language of a request that has not reached Gradio."""
    LocalContext.request.set(gr.Request(starlette.requests.Request(scope)))


def in_chinese() -> bool:
    """Whether the current request asks for Chinese."""
    request = LocalContext.request.get(None)
    languages = request.headers.get("accept-language", "") if request else ""
    return languages.lower().startswith("zh")


def _key(english: str) -> str:
    """A key without dots and braces, which Gradio's frontend would read as paths and placeholders."""
    return f"t{zlib.crc32(english.encode()):08x}"
