"""The page: the choice of a model above, the tabs below it, its facts beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app import write
from app.facts import describe, note
from app.models import Models
from lm.errors import UserError

TITLE = "Write with a recurrent language model"

# Ctrl-Enter and Esc press the buttons, wherever on the page the person is.
_KEYS = """() => {
    document.addEventListener("keydown", (event) => {
        const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey);
        const button = enter ? "generate" : event.key === "Escape" ? "stop" : null;
        if (!button) return;
        if (enter) event.preventDefault();
        document.getElementById(button)?.click();
    });
}"""


def build(models: Models) -> gr.Blocks:
    """The page over `models`; start it with `launch(**launch_settings())`."""
    names = list(models.found())
    with gr.Blocks(title=TITLE) as page:
        with gr.Row(elem_id="head", equal_height=True):
            with gr.Column(scale=5, min_width=300):
                gr.Markdown(f"# {TITLE}", elem_id="title")
            with gr.Column(scale=3, min_width=300):
                model = gr.Dropdown(
                    names, label="Model", show_label=False, container=False, filterable=False, elem_id="model"
                )
        with gr.Row(elem_id="page"):
            with gr.Column(scale=5, min_width=300):
                write.build(models, model)
            with gr.Column(scale=3, min_width=300):
                facts = gr.HTML(label="Facts", elem_id="facts")

        def refresh() -> tuple[gr.Dropdown, str]:
            """List the models there are now."""
            names = list(models.found())
            first = names[0] if names else None
            return gr.Dropdown(names, value=first), tell(first)

        def tell(model: str | None) -> str:
            """The facts of a model and its loss curve, as HTML."""
            try:
                return describe(models.folder(model))
            except UserError as error:
                return note(str(error))

        page.load(refresh, None, [model, facts], api_name="models", show_progress="hidden")
        model.input(tell, model, facts, api_name="facts", show_progress="hidden")
    return page


def launch_settings() -> dict[str, Any]:
    """What Gradio takes at the launch: the looks, the keys, and nothing from other servers."""
    system = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "Consolas", "monospace")]
    theme = gr.themes.Default(font=system, font_mono=mono).set(
        # Gradio's own greys and orange are too pale to be read with ease.
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )
    return {
        "theme": theme,
        "css_paths": Path(__file__).parent / "style.css",
        "js": _KEYS,
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
    }
