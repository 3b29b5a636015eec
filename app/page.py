"""The page: the choice of a model above, a tab for each thing to do below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lm.errors import UserError

from .endpoints import Endpoints
from .jobs.queue import JobQueue
from .jobs.uploads import MAX_SIZE
from .registry import ModelRegistry
from .tabs.compare import tab as compare
from .tabs.inside import tab as inside
from .tabs.models import tab as library
from .tabs.train import tab as training
from .tabs.write import tab as write
from .ui import tour
from .ui.errors import INTERNAL, as_sentence, show_errors
from .ui.i18n import localized, translations
from .ui.middleware import VISITS_KEPT, Gate, Page
from .ui.model_facts import describe, note

TITLE = "Write with a recurrent language model"
_STATIC = Path(__file__).parent / "static"


def build(models: ModelRegistry, jobs: JobQueue | None = None) -> gr.Blocks:
    """The page over `models`; start it with `launch(**launch_settings())`. Without `jobs` nobody can train
    or change models on it."""
    names = list(models.folders())
    # Copies of files that were downloaded are deleted after an hour.
    with Page(title=TITLE, delete_cache=(600, 3600)) as page:
        with gr.Row(elem_id="head", equal_height=True):
            with gr.Column(scale=5, min_width=300):
                gr.Markdown(localized("# Write with a recurrent language model"), elem_id="title")
            with gr.Column(scale=3, min_width=300):
                model = gr.Dropdown(
                    names, label=localized("Model"), show_label=False, container=False, filterable=False,
                    elem_id="model",
                )  # fmt: skip
        above = gr.Column()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(localized("Write"), id="write"):
                editor = write.build(models, model)
            with gr.Tab(localized("Look inside"), id="inside"):
                inside.build(models, model)
            with gr.Tab(localized("Compare"), id="compare") as tab:
                compare.build(models, tab)
            if jobs:
                with gr.Tab(localized("Train"), id="train") as tab:
                    trainer = training.build(jobs, tab)
            with gr.Tab(localized("Models"), id="models") as tab:
                shelf = library.build(models, tab, jobs)

        def refresh(chosen: str | None) -> tuple[gr.Dropdown, str]:
            """List the models there are now."""
            names = list(models.folders())
            chosen = chosen if chosen in names else names[0] if names else None
            return gr.Dropdown(names, value=chosen), tell(chosen)

        def tell(model: str | None) -> str:
            """The facts of a model and its loss curve, as HTML."""
            try:
                return describe(models.folder(model))
            except UserError as error:
                return note(as_sentence(error))

        def follow(chosen: str | None, renamed: dict[str, str]) -> tuple[gr.Dropdown, str]:
            """List the models there are now that one was deleted, or is called otherwise."""
            return refresh(renamed.get(chosen, chosen))

        if editing := shelf.editing:
            for change in editing.changes:
                change.success(follow, [model, editing.renamed], [model, editor.facts], **INTERNAL)
        with above:
            tour.build(model, tabs, editor.facts, refresh, may_train=jobs is not None)
        page.load(refresh, model, [model, editor.facts], **INTERNAL)
        page.load(None, None, editor.text, js="() => lm.storedText()", **INTERNAL)

        def write_with(job: str | None) -> tuple[gr.Dropdown, str, gr.Tabs]:
            """Choose the model of a training, and open the tab to write with it."""
            with show_errors():
                return *refresh(trainer.model_of(job)), gr.Tabs(selected="write")

        if jobs:
            trainer.use.click(write_with, trainer.job, [model, editor.facts, tabs], **INTERNAL)
        model.input(tell, model, editor.facts, **INTERNAL)

        def leave(request: gr.Request) -> None:
            """Forget a person who has left."""
            editor.leave(request)
            page.forget(request.session_hash)

        page.unload(leave)
        Endpoints(models).register()
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
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        color_accent="*primary_700",
    )
    return {
        "theme": theme,
        "css_paths": sorted((_STATIC / "styles").glob("*.css")),
        "head": "".join(
            f"<script>{(_STATIC / name).read_text()}</script>" for name in ("page.js", "tour.js")
        ),
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "state_session_capacity": VISITS_KEPT,
        "max_file_size": MAX_SIZE,
        "app_kwargs": {"middleware": [Middleware(Gate)]},
        "i18n": translations(),
    }
