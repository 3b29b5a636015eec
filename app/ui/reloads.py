"""Forms that are filled in again when the page is reloaded, from what the browser has kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from .errors import INTERNAL

_RESTORE_JS = """() => {kept}.map((value) =>
    ({{__type__: "update", ...(value !== null && {{value}})}}))"""


def keep(form: str, components: Sequence[Any]) -> None:
    """Let the browser keep the values of `components`, under the name of their `form`, until its tab is
    closed."""
    js = f"(...values) => void lm.keep({json.dumps(form)}, values)"
    gr.on([component.change for component in components], None, components, None, js=js, **INTERNAL)


def kept_js(form: str, components: Sequence[Any]) -> str:
    """In JavaScript, the values of `components` that were kept; null for each if there are none."""
    return f"lm.kept({json.dumps(form)}, {len(components)})"


def restore(form: str, components: Sequence[Any], loaded: Any) -> Any:
    """Let the browser keep the values of `components`, and fill them in again after the event `loaded` of the
    page. Returns the event after that."""
    keep(form, components)
    js = _RESTORE_JS.format(kept=kept_js(form, components))
    return loaded.then(None, None, components, js=js, **INTERNAL)
