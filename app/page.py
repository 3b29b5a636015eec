"""The page: a model selector, the showcase and the tour on top, one tab for each task below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lm.errors import UserError, one_line

from .endpoints import Endpoints
from .jobs.queue import JobQueue
from .jobs.uploads import MAX_SIZE
from .registry import ModelRegistry
from .showcase.exhibits import Showcases
from .showcase.starters import Starters
from .showcase.view import ShowcaseView
from .tabs.compare.tab import CompareTab
from .tabs.inside.tab import InsideTab
from .tabs.models.tab import ModelsTab
from .tabs.train.tab import TrainTab
from .tabs.write.tab import WriteTab
from .ui import tour
from .ui.blocks import MAX_SESSIONS, Page
from .ui.errors import INTERNAL, as_sentence, event_value, show_errors, show_warning
from .ui.fields import UNLABELED
from .ui.i18n import browser_script, localized, translate, translations
from .ui.middleware import CompressedPage, RequestFilter
from .ui.model_choices import Selection, choices, first_choice
from .ui.model_facts import describe, note
from .ui.reloads import restore

TITLE = "Write with a recurrent language model"
_STATIC = Path(__file__).parent / "static"
_SCRIPTS = (  # in the head of the page, in this order: each uses those before it
    "surprisal.js",
    "versions.js",
    "storage.js",
    "editor.js",
    "page.js",
    "documents.js",
    "document_list.js",
    "writing.js",
    "choices.js",
    "tour.js",
    "train.js",
    "inside.js",
    "showcase.js",
    "messages.js",
    "starters.js",
)

# Open a tab; the first value is that of a text.
_OPEN_JS = """(text) => [text, {{__type__: "update", selected: "{tab}"}}]"""

# Open the tab that was open before the page was reloaded, if there is one.
_OPEN_AGAIN_JS = """() => {{
    const selected = lm.tabBefore();
    return {{__type__: "update", ...({ids}.includes(selected) && {{selected}})}};
}}"""


def build(
    models: ModelRegistry, jobs: JobQueue | None = None, showcases: Showcases | None = None
) -> gr.Blocks:
    """The page for `models`; start it with `launch(**launch_settings())`. Without `jobs`, users can neither
    train nor rename or delete models."""
    # Every 10 minutes, Gradio deletes its copies of downloaded files that are older than an hour.
    with Page(title=TITLE, delete_cache=(600, 3600)) as page:
        selector = ModelSelector(models)
        showcases = showcases or Showcases(models)
        showcase, offer = ShowcaseView(showcases, selector.dropdown), Starters(showcases, models)
        guides = gr.Row(elem_id="guides")
        train_tab = None
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(localized("Write"), id="write"):
                write_tab = WriteTab(models, selector.dropdown)
            facts = write_tab.layout.facts
            selected = [selector.dropdown, facts]
            with gr.Tab(localized("Look inside"), id="inside") as tab:
                inside_tab = InsideTab(models, selector.dropdown, tab)
            with gr.Tab(localized("Compare"), id="compare") as tab:
                compare_tab = CompareTab(models, tab)
            if jobs:
                with gr.Tab(localized("Train"), id="train") as tab:
                    train_tab = TrainTab(jobs, tab, models)
            with gr.Tab(localized("Models"), id="models") as tab:
                selection = Selection(selector.dropdown, selected, selector.select)
                models_tab = ModelsTab(models, tab, selection, jobs)
        with guides:
            showcase.lay_out_link()
            tour.build(selector.dropdown, tabs, facts, selector.select, can_train=jobs is not None)
        loaded = write_tab.open_documents(page, selector.restore, selected)
        loaded.then(None, js="() => lmShowcase.refresh()", **INTERNAL)
        for event in (loaded.then, selector.dropdown.change):
            event(offer.on_model, selector.dropdown, offer.text, **INTERNAL)
        selector.dropdown.input(selector.facts, selector.dropdown, facts, **INTERNAL)
        loaded = restore("compare", compare_tab.layout.kept, loaded)
        loaded = restore("inside", [inside_tab.layout.text], loaded)
        if train_tab:
            loaded = train_tab.restore_form(loaded)
        _restore_tab(tabs, loaded)
        if train_tab:
            _open_trained_models(train_tab, selector, [*selected, tabs])
        _take_texts_along(write_tab, inside_tab, tabs)
        opened = models_tab.table.click(selector.open, None, [*selected, tabs], **INTERNAL)
        compare_tab.follow(selector.dropdown, [selector.dropdown.change, opened.then])
        _forget_closed_sessions(page, write_tab)
        Endpoints(models).register()
    return page


class ModelSelector:
    """The title of the page and the dropdown next to it, in which the user selects a model."""

    def __init__(self, models: ModelRegistry):
        self._models = models
        with gr.Row(elem_id="head", equal_height=True):
            with gr.Column(scale=5, min_width=300):
                gr.Markdown(localized("# Write with a recurrent language model"), elem_id="title")
            with gr.Column(scale=4, min_width=300):
                self.dropdown = gr.Dropdown(
                    choices(models),
                    value=first_choice(models),
                    label=localized("Model"),
                    elem_id="model",
                    **UNLABELED,
                )

    def select(self, name: str | None) -> tuple[gr.Dropdown, str]:
        """Refresh the list and select a model, that of `first_choice` if `name` is not in the list. Also
        returns its facts."""
        found = choices(self._models)
        if name not in [choice for _, choice in found]:
            name = first_choice(self._models)
        return gr.Dropdown(found, value=name), self.facts(name)

    def restore(self, name: Any) -> tuple[gr.Dropdown, str]:
        """`select` for what the browser stored as the model of a document; says so if that model is gone."""
        if name and isinstance(name, str) and name not in self._models.folders():
            message = "The model of this document, “{model}”, is no longer here: choose another."
            show_warning(translate(message, model=one_line(name, 80)))
        return self.select(name)

    def open(self, event: gr.EventData) -> Any:
        """Select a model and open a tab."""
        name, tab = event_value(event, "name"), event_value(event, "tab")
        if tab not in ("write", "inside", "compare"):
            return gr.skip()
        return [*self.select(name), gr.Tabs(selected=tab)]

    def facts(self, name: str | None) -> str:
        """The facts and the loss curve of a model, as HTML."""
        try:
            return describe(self._models.folder(name))
        except UserError as error:
            return note(as_sentence(error))


def _restore_tab(tabs: gr.Tabs, loaded: Any) -> None:
    """Let the browser open the tab again that was open before the page was reloaded."""
    children: list[Any] = tabs.children
    ids = [tab.id for tab in children]
    for tab in children:
        tab.select(None, js=f"() => void lm.session('lm.tab', '{tab.id}')", **INTERNAL)
    loaded.then(None, None, tabs, js=_OPEN_AGAIN_JS.format(ids=ids), **INTERNAL)


def _open_trained_models(train_tab: TrainTab, selector: ModelSelector, outputs: list[Any]) -> None:
    """Let the Train tab open the Write tab with the model that it trained."""

    def open_model(job: str | None) -> tuple[gr.Dropdown, str, gr.Tabs]:
        with show_errors():
            return *selector.select(train_tab.model_of(job)), gr.Tabs(selected="write")

    train_tab.use.click(open_model, train_tab.job, outputs, **INTERNAL)


def _take_texts_along(write_tab: WriteTab, inside_tab: InsideTab, tabs: gr.Tabs) -> None:
    """Let the Write and Look inside tabs open each other with their text."""
    text = inside_tab.layout.text
    write_tab.layout.look_inside.click(
        None, write_tab.layout.text, [text, tabs], js=_OPEN_JS.format(tab="inside"), **INTERNAL
    )
    inside_tab.layout.write.click(
        None, text, [text, tabs], js=_OPEN_JS.format(tab="write"), **INTERNAL
    ).success(None, text, js="(text) => void lmInside.write(text)", **INTERNAL)


def _forget_closed_sessions(page: Page, write_tab: WriteTab) -> None:
    def forget(request: gr.Request) -> None:
        write_tab.forget(request.session_hash)
        page.forget(request.session_hash)

    page.unload(forget)


def launch_settings() -> dict[str, Any]:
    """The arguments of `launch`: looks, texts and limits. Nothing is loaded from other servers."""
    system = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "Consolas", "monospace")]
    theme = gr.themes.Default(font=system, font_mono=mono).set(
        # Gradio's default grays and orange have too little contrast.
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        color_accent="*primary_700",
    )
    scripts = [(_STATIC / name).read_text("utf-8") for name in _SCRIPTS]
    return {
        "theme": theme,
        "css_paths": sorted((_STATIC / "styles").glob("*.css")),
        "head": "".join(f"<script>{script}</script>" for script in [*scripts, browser_script()]),
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "state_session_capacity": MAX_SESSIONS,
        "max_file_size": MAX_SIZE,
        "app_kwargs": {"middleware": [Middleware(RequestFilter), Middleware(CompressedPage)]},
        "i18n": translations(),
    }
