"""What the Write tab displays: a text with its highlights, the status, and labels of versions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import gradio as gr

from ...continuation import Progress
from ...draft import Draft
from ...ui.i18n import translate
from .history import Version


def draft_updates(draft: Draft) -> list[Any]:
    """Updates that display the text of a draft and its highlights."""
    return [draft.text, highlights_value(draft.text, draft.levels)]


def version_updates(version: Version) -> list[Any]:
    """Updates that display a version and hide the candidates and alternatives."""
    levels = version.draft.levels if version.draft else ""
    return [version.text, highlights_value(version.text, levels), "", gr.Row(visible=False), None]


def highlights_value(text: str, levels: str, copied: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """Levels and copied spans for the browser, which counts in UTF-16 code units: characters above U+FFFF
    count twice."""
    if not text.isascii() and max(text) > "\uffff":
        widths = [1 + (character > "\uffff") for character in text]
        offsets = [0, *accumulate(widths)]
        levels = "".join(level * width for level, width in zip(levels, widths, strict=False))
        copied = [(offsets[start], offsets[end]) for start, end in copied]
    return {"levels": levels, "copied": list(copied)}


def status_line(progress: Progress, seed: int) -> str:
    """The seed, the number of tokens and the speed of a generation."""
    status = translate(
        "seed {seed} · {tokens:,} tokens · {speed:,.0f} tokens/s",
        seed=seed,
        tokens=progress.tokens,
        speed=progress.tokens_per_second,
    )
    return status + (f" · {translate('the model ended the text')}" if progress.ended else "")


def version_label(number: int, version: Version) -> str:
    """The number of a version, its length in characters and the end of its text."""
    end = " ".join(version.text[-60:].split())
    return f"{number} · {len(version.text):,} · …{end}"
