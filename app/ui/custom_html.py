"""Components that a script of app/static/ draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_STATIC = Path(__file__).parents[1] / "static"


def custom_html(script: str, template: str, elem_id: str, **options: Any) -> gr.HTML:
    """A component without a value: the HTML `template`, which `script`, a file in app/static/, fills in."""
    return gr.HTML(
        None,
        html_template=template,
        js_on_load=(_STATIC / script).read_text("utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        **options,
    )
