"""The Write tab: one text, which the user and the model write in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown

from ...continuation import (
    DEFAULT_LENGTH,
    MAX_CANDIDATES,
    Progress,
    checked_length,
    checked_seed,
    checked_text,
    continue_drafts,
)
from ...draft import Draft, restore_controls
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, event_int, show_errors, show_info, show_warning
from ...ui.i18n import localized, translate
from .alternatives import alternatives_panel, alternatives_value
from .controls import Controls
from .history import Histories, History, Version
from .originality import copied_spans

WRITERS_AT_ONCE = 32
HINT = (
    "Ctrl+Enter generates, Esc stops. Click in the text or press Ctrl+Space to see the alternatives at that"
    " position."
)
_BUSY = "…"  # the status until the first tokens arrive
_SKIP = [gr.skip()] * MAX_CANDIDATES

# JavaScript of the events. It runs before the server responds; `lm` is defined in static/page.js.
_HIGHLIGHTS_JS = (
    "lm.requestAlternatives = (position) => trigger('click', { position });"
    " watch('value', () => lm.setHighlights(props.value));"
)
# Enable Stop, disable the other buttons.
_START_JS = f"""() => {{
    lm.lock();
    const set = (interactive) => ({{__type__: "update", interactive}});
    return [set(false), set(true), set(false), set(false), set(false), set(false), "{_BUSY}"];
}}"""
# Disable Generate and Regenerate, so that the end of Undo is not taken for the end of a generation.
_MOVE_JS = """() => {
    const disabled = {__type__: "update", interactive: false};
    return [disabled, disabled];
}"""
_END_JS = "(...inputs) => { lm.unlock(); return inputs; }"
_COLORS_JS = "(on) => void document.body.classList.toggle('no-colors', !on)"


class WriteTab:
    """The components of the tab and their event handlers."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.histories = models, model, Histories()
        with gr.Row(elem_id="page"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_editor()
                self._lay_out_candidates()
                self._lay_out_insights()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_settings()
        self._wire()

    def _lay_out_editor(self) -> None:
        self.text = gr.Textbox(
            label=localized("Text"),
            elem_id="text",
            placeholder=localized("Type the beginning of a text, then press Generate."),
            lines=16,
            max_lines=16,
            autoscroll=False,
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
        )
        self.highlights = gr.HTML(None, html_template="", js_on_load=_HIGHLIGHTS_JS, elem_id="highlights")
        with gr.Row(elem_id="actions"):
            self.generate = gr.Button(
                localized("Generate"),
                variant="primary",
                elem_id="generate",
                elem_classes="lm-go",
                min_width=60,
            )
            self.stop = gr.Button(
                localized("Stop"), elem_id="stop", elem_classes="lm-stop", interactive=False, min_width=60
            )
            self.undo = gr.Button(localized("Undo"), elem_id="undo", interactive=False, min_width=60)
            self.redo = gr.Button(localized("Redo"), elem_id="redo", interactive=False, min_width=60)
            self.regenerate = gr.Button(
                localized("Regenerate"), elem_id="regenerate", interactive=False, min_width=60
            )
        with gr.Row(elem_id="result"):
            self.status = gr.Markdown(localized(HINT), label=localized("Status"), elem_id="status")
            self.reuse = gr.Button(
                localized("Reuse this seed"), size="sm", elem_id="reuse", interactive=False
            )

    def _lay_out_candidates(self) -> None:
        self.columns: list[gr.Column] = []
        self.boxes: list[gr.Textbox] = []
        self.takes: list[gr.Button] = []
        with gr.Row(elem_id="candidates", visible=False) as self.candidates:
            for number in range(1, MAX_CANDIDATES + 1):
                with gr.Column(min_width=220, visible=False, elem_classes="candidate") as column:
                    box = gr.Textbox(
                        label=f"{number}", lines=8, max_lines=8, interactive=False, autoscroll=False
                    )
                    take = gr.Button(localized("Use this one"), size="sm", elem_id=f"take-{number}")
                self.columns.append(column)
                self.boxes.append(box)
                self.takes.append(take)

    def _lay_out_insights(self) -> None:
        with gr.Row(elem_id="view"):
            self.colors = gr.Checkbox(
                True,
                label=localized("Highlight unlikely tokens"),
                elem_id="colors",
                container=False,
                min_width=0,
            )
            self.copied = gr.Checkbox(
                False,
                label=localized("Underline text copied from the training data"),
                elem_id="copied",
                container=False,
                min_width=0,
            )
        self.panel = alternatives_panel()
        with gr.Accordion(localized("Versions"), open=False, elem_id="versions", visible=False) as accordion:
            self.versions = gr.Radio([], label=localized("Return to a version"), elem_id="version")
        self.branches = accordion

    def _lay_out_settings(self) -> None:
        with gr.Group(elem_id="settings"):
            with gr.Row():
                self.length = gr.Number(
                    DEFAULT_LENGTH,
                    precision=0,
                    label=localized("Length"),
                    info=localized("in tokens"),
                    min_width=90,
                    elem_id="length",
                )
                # -1 and not empty: Gradio displays and sends an empty number as 0.
                self.seed = gr.Number(
                    -1,
                    precision=0,
                    label=localized("Seed"),
                    info=localized("-1: random"),
                    min_width=90,
                    elem_id="seed",
                )
                self.count = gr.Number(
                    1,
                    precision=0,
                    minimum=1,
                    maximum=MAX_CANDIDATES,
                    label=localized("Candidates"),
                    info=localized("1 to 4"),
                    min_width=90,
                    elem_id="count",
                )
            self.controls = Controls()
        self.facts = gr.HTML(label="Facts", elem_id="facts")

    def _wire(self) -> None:
        generations = [
            self._wire_generation(self.generate.click, self.on_generate),
            self._wire_generation(self.regenerate.click, self.on_regenerate),
            self._wire_generation(self.panel.click, self.on_alternative),
        ]
        self.stop.click(None, cancels=generations)
        self._wire_move(self.undo.click, self.on_undo, [self.text])
        self._wire_move(self.redo.click, self.on_redo, [self.text])
        self._wire_move(self.versions.input, self.on_version, [self.versions, self.text])
        for number, take in enumerate(self.takes):
            self._wire_move(take.click, self._take(number), [self.text])
        self.text.change(None, js="() => lm.textChanged()", **INTERNAL)
        self.highlights.click(self.on_position, [self.text, self.model], self.panel, **INTERNAL)
        self.reuse.click(self.on_reuse, None, self.seed, **INTERNAL)
        self.colors.change(None, self.colors, js=_COLORS_JS, **INTERNAL)
        self.copied.input(self.on_copied, [self.text, self.model, self.copied], self.highlights, **INTERNAL)

    def _wire_generation(self, trigger: Any, function: Callable[..., Any]) -> Any:
        """Call a generator when an event is triggered; returns what can be canceled."""
        # The listeners of a trigger run in this order.
        trigger(None, None, [*self._buttons, self.status], js=_START_JS, **INTERNAL)
        event = trigger(
            function,
            [self.text, self.model, self.length, self.seed, self.count, *self.controls.components],
            [*self._display, *self.columns, *self.boxes, self.panel],
            concurrency_id="write",
            concurrency_limit=WRITERS_AT_ONCE,
            **INTERNAL,
        )
        self._wire_finish(event)
        return event

    def _wire_move(self, trigger: Any, function: Callable[..., Any], inputs: list[Any]) -> None:
        """Call a function that moves to another version when an event is triggered."""
        trigger(None, None, [self.generate, self.regenerate], js=_MOVE_JS, **INTERNAL)
        self._wire_finish(trigger(function, inputs, [*self._display, self.panel], **INTERNAL))

    def _wire_finish(self, event: Any) -> None:
        # Gradio counts a cancellation as a failure, and does not run `then` after an error.
        for finished in (event.success, event.failure):
            finished(
                self.on_finished,
                [self.status, self.text, self.model, self.copied],
                [*self._buttons, self.status, self.text, self.highlights, self.branches, self.versions],
                js=_END_JS,
                **INTERNAL,
            )

    @property
    def _buttons(self) -> list[gr.Button]:
        return [self.generate, self.stop, self.undo, self.redo, self.regenerate, self.reuse]

    @property
    def _display(self) -> list[Any]:
        """The components that display a version."""
        return [self.text, self.highlights, self.status, self.candidates]

    def on_generate(
        self, request: gr.Request, text: str, name: str, length: int, seed: int, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Continue the text."""
        history = self._history(request)
        with show_errors():
            model = self.models.load(name)
            _warn_about_prompt(model, checked_text(text))
            history.record(text)
            draft = history.draft(text, model)
            yield from self._continue(history, draft, history.current, length, seed, count, controls)

    def on_regenerate(
        self, request: gr.Request, text: str, name: str, length: int, seed: int, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Generate the end of the text again, with another seed."""
        history = self._history(request)
        with show_errors():
            model = self.models.load(name)
            history.record(text)
            parent = _last_parent(history.current)
            if not text.startswith(parent.text):
                show_info(translate("Continuing from the text before your edits. Undo restores them."))
            draft = history.draft(parent.text, model)
            yield from self._continue(history, draft, parent, length, None, count, controls)

    def on_alternative(
        self,
        request: gr.Request,
        event: gr.EventData,
        text: str,
        name: str,
        length: int,
        seed: int,
        count: int,
        *controls: Any,
    ) -> Iterator[list[Any]]:
        """Replace a token and continue from there; at the end of the text, only append the token."""
        history = self._history(request)
        with show_errors():
            model = self.models.load(name)
            history.record(checked_text(text))
            position, token = event_int(event, "start"), event_int(event, "token")
            draft = history.draft(text, model).with_token(position, token)
            if position < len(text):
                yield from self._continue(history, draft, history.current, length, seed, 1, controls)
            else:
                history.add(Version(draft, parent=history.current, seed=history.current.seed))
                next_tokens = alternatives_value(draft, len(draft.text))
                yield [*_shown(draft), gr.skip(), gr.skip(), *_SKIP, *_SKIP, next_tokens]

    def _continue(
        self,
        history: History,
        start: Draft,
        parent: Version,
        length: float | None,
        seed: float | None,
        count: float | None,
        controls: Sequence[Any],
    ) -> Iterator[list[Any]]:
        """Continue `start` once, or several times as candidates; yields updates for the outputs."""
        length, seed = checked_length(length), checked_seed(seed)
        count = max(1, min(MAX_CANDIDATES, int(count or 1)))
        drafts = [start.fork() for _ in range(count)]
        seeds = [seed + number for number in range(count)]
        versions = [Version(d, parent=parent, seed=s) for d, s in zip(drafts, seeds, strict=True)]
        # The first update also sets the layout and clears the alternatives.
        visible = [gr.Column(visible=number < count > 1) for number in range(MAX_CANDIDATES)]
        layout: list[Any] = [gr.Row(visible=count > 1), *visible]
        panel: Any = None
        first = True
        with closing(continue_drafts(drafts, seeds, length, **self.controls.settings(controls))) as steps:
            for progress in steps:
                if first:  # from now on there is something to keep when the user presses Stop
                    history.candidates = versions if count > 1 else []
                    if count == 1:
                        history.add(versions[0])
                status = _status(progress, seed)
                if count == 1:
                    main, boxes = [*_shown(drafts[0]), status], _SKIP
                else:
                    texts = [draft.text[len(start.text) :] for draft in drafts]
                    main = [gr.skip(), gr.skip(), status]
                    boxes = [*texts, *[""] * (MAX_CANDIDATES - count)]
                yield [*main, *layout, *boxes, panel]
                layout, panel, first = [gr.skip(), *_SKIP], gr.skip(), False

    def _take(self, number: int) -> Callable[..., list[Any]]:
        def take(text: str, request: gr.Request) -> list[Any]:
            """Continue with one of the candidates."""
            history = self._history(request)
            if number < len(history.candidates):
                history.record(text)
                history.add(history.candidates[number])
                history.candidates = []
            return _displayed(history.current)

        return take

    def on_undo(self, text: str, request: gr.Request) -> list[Any]:
        """Return to the previous version."""
        return _displayed(self._history(request).undo(text))

    def on_redo(self, text: str, request: gr.Request) -> list[Any]:
        """Move to the next version."""
        return _displayed(self._history(request).redo(text))

    def on_version(self, number: int | None, text: str, request: gr.Request) -> list[Any]:
        """Move to another branch."""
        return _displayed(self._history(request).go_to(-1 if number is None else int(number), text))

    def on_position(self, text: str, name: str, request: gr.Request, event: gr.EventData) -> dict[str, Any]:
        """Show the alternatives at the cursor."""
        with show_errors():
            # The browser counts UTF-16 code units, of two bytes each.
            before = text.encode("utf-16-le")[: 2 * max(0, event_int(event, "position"))]
            position = len(before.decode("utf-16-le", "ignore"))
            return alternatives_value(self._history(request).draft(text, self.models.load(name)), position)

    def on_reuse(self, request: gr.Request) -> int | None:
        """The seed of the displayed version."""
        return self._history(request).current.seed

    def on_copied(self, text: str, name: str, copied: bool, request: gr.Request) -> dict[str, Any]:
        """Underline the text copied from the training data, or stop doing so."""
        with show_errors():
            return self._highlights(self._history(request), text, name, copied)

    def on_finished(self, status: str, text: str, name: str, copied: bool, request: gr.Request) -> list[Any]:
        """Update everything that changes when generation is finished or stopped."""
        history = self._history(request)
        current = history.current
        generated = current.seed is not None
        # When stopped, the page may not have received the last tokens.
        text = current.text if current.text.startswith(text) and current.draft else text
        try:
            highlights = self._highlights(history, text, name, copied)
        except UserError as error:
            show_warning(as_sentence(error))
            highlights = self._highlights(history, text, name, copied=False)
        branches = history.branches()
        choices = [(_snippet(number, version), number) for number, version in branches]
        selected = next((number for number, version in branches if version is current), None)
        return [
            gr.Button(localized("Continue") if generated else localized("Generate"), interactive=True),
            gr.Button(interactive=False),  # Stop
            gr.Button(interactive=current.previous is not None),
            gr.Button(interactive=current.next is not None),
            gr.Button(interactive=generated),
            gr.Button(interactive=generated),
            translate(HINT) if status in (_BUSY, "") else status,
            text,
            highlights,
            gr.Accordion(visible=len(branches) > 1),
            gr.Radio(choices, value=selected),
        ]

    def forget(self, session: str | None) -> None:
        """Delete the history of a closed session."""
        if session:
            self.histories.forget(session)

    def _history(self, request: gr.Request) -> History:
        return self.histories.of(request.session_hash or "")

    def _highlights(self, history: History, text: str, name: str, copied: bool) -> dict[str, Any]:
        draft = history.current.draft
        levels = draft.levels if draft and draft.text == text else ""
        spans: list[tuple[int, int]] = []
        if copied and text:
            spans, searched = copied_spans(self.models.folder(name), text)
            if searched < 1:
                show_info(
                    translate(
                        "The training text is long: only {share:.0%} of it was searched.", share=searched
                    )
                )
        return _highlights(text, levels, spans)


def build(models: ModelRegistry, model: gr.Dropdown) -> WriteTab:
    """Add the tab to the current Blocks; `model` is the dropdown that selects the model."""
    return WriteTab(models, model)


def _last_parent(version: Version) -> Version:
    """The version that the model continued last."""
    while version.parent and version.seed is None:
        version = version.parent
    return version.parent or version


def _shown(draft: Draft) -> list[Any]:
    return [draft.text, _highlights(draft.text, draft.levels)]


def _displayed(version: Version) -> list[Any]:
    """Updates that display a version and hide the candidates and alternatives."""
    levels = version.draft.levels if version.draft else ""
    return [version.text, _highlights(version.text, levels), "", gr.Row(visible=False), None]


def _highlights(text: str, levels: str, copied: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """Levels and copied spans for the browser, which counts in UTF-16 code units: characters above U+FFFF
    count twice."""
    if not text.isascii() and max(text) > "\uffff":
        widths = [1 + (character > "\uffff") for character in text]
        offsets = [0, *accumulate(widths)]
        levels = "".join(level * width for level, width in zip(levels, widths, strict=False))
        copied = [(offsets[start], offsets[end]) for start, end in copied]
    return {"levels": levels, "copied": list(copied)}


def _status(progress: Progress, seed: int) -> str:
    status = translate(
        "seed {seed} · {tokens:,} tokens · {speed:,.0f} tokens/s",
        seed=seed,
        tokens=progress.tokens,
        speed=progress.tokens_per_second,
    )
    return status + (f" · {translate('the model ended the text')}" if progress.ended else "")


def _snippet(number: int, version: Version) -> str:
    end = " ".join(version.text[-60:].split())
    return f"{number} · {len(version.text):,} · …{end}"


def _warn_about_prompt(model: LanguageModel, text: str) -> None:
    if not text:
        show_info(translate("Empty prompt: the model starts from scratch."))
    unknown = describe_unknown(model.tokenizer, restore_controls(model, text))
    if unknown:
        show_warning(translate("The model does not know {names} and reads <unk> instead.", names=unknown))
