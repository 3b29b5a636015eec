"""The Write tab: one text, which the person and the model continue by turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.language_model import LanguageModel

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
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.i18n import localized, translate
from . import alternatives
from .controls import Controls
from .desk import Desk, Desks, Version
from .originality import mark_copied

WRITERS_AT_ONCE = 32
HINT = (
    "Ctrl-Enter generates, Esc stops. Click into the text, or press Ctrl-Space, to see what else could"
    " stand there."
)
_LEVELS = "lm.ask = (place) => trigger('click', { place }); watch('value', () => lm.levels(props.value));"
# At the start, before the server answers: Stop is there, all else waits.
_ON_START = """() => {
    lm.begin();
    const set = (interactive) => ({__type__: "update", interactive});
    return [set(false), set(true), set(false), set(false), set(false), set(false), "…"];
}"""
# Until a move has come to its end nothing may be written, or its end would seem the writing's.
_ON_MOVE = """() => {
    const waits = {__type__: "update", interactive: false};
    return [waits, waits];
}"""
_ON_END = "(...inputs) => { lm.end(); return inputs; }"
_ON_COLOURS = "(on) => void document.body.classList.toggle('no-colours', !on)"
_SKIP = [gr.skip()] * MAX_CANDIDATES


class Editor:
    """The tab's components, and what happens between them."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.desks = models, model, Desks()
        with gr.Row(elem_id="page"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_text()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_settings()
        self._wire()

    def _lay_out_text(self) -> None:
        self.text = gr.Textbox(
            label=localized("Text"),
            elem_id="text",
            placeholder=localized("Type how the text begins, then press Generate."),
            lines=16,
            max_lines=16,
            autoscroll=False,
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
        )
        self.levels = gr.HTML("", html_template="", js_on_load=_LEVELS, elem_id="levels")
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
            self.again = gr.Button(
                localized("Regenerate"), elem_id="regenerate", interactive=False, min_width=60
            )
        with gr.Row(elem_id="made"):
            self.status = gr.Markdown(localized(HINT), label=localized("Status"), elem_id="status")
            self.reuse = gr.Button(
                localized("Use this seed again"), size="sm", elem_id="reuse", interactive=False
            )
        with gr.Row(elem_id="candidates", visible=False) as self.choice:
            self.boxes, self.takes = [], []
            for number in range(MAX_CANDIDATES):
                with gr.Column(min_width=220, visible=False, elem_classes="candidate") as column:
                    box = gr.Textbox(
                        label=f"{number + 1}", lines=8, max_lines=8, interactive=False, autoscroll=False
                    )
                    take = gr.Button(localized("Take this one"), size="sm", elem_id=f"take-{number + 1}")
                self.boxes.append((column, box))
                self.takes.append(take)
        with gr.Row(elem_id="looks"):
            self.colours = gr.Checkbox(
                True,
                label=localized("Colour what was unlikely"),
                elem_id="colours",
                container=False,
                min_width=0,
            )
            self.copied = gr.Checkbox(
                False, label=localized("Underline what is copied from the training text"), elem_id="copied",
                container=False, min_width=0,
            )  # fmt: skip
        self.panel = alternatives.panel()
        with gr.Accordion(
            localized("Versions"), open=False, elem_id="versions", visible=False
        ) as self.branches:
            self.versions = gr.Radio([], label=localized("Go back to a version"), elem_id="version")

    def _lay_out_settings(self) -> None:
        with gr.Group(elem_id="settings"):
            with gr.Row():
                self.length = gr.Number(
                    DEFAULT_LENGTH, precision=0, label=localized("Length"), info=localized("in tokens"),
                    min_width=90, elem_id="length",
                )  # fmt: skip
                # An empty number would be shown, and sent, as 0.
                self.seed = gr.Number(
                    -1, precision=0, label=localized("Seed"), info=localized("-1: random"), min_width=90,
                    elem_id="seed",
                )  # fmt: skip
                self.count = gr.Number(
                    1, precision=0, minimum=1, maximum=MAX_CANDIDATES, label=localized("Candidates"),
                    info=localized("to choose from"), min_width=90, elem_id="count",
                )  # fmt: skip
            self.controls = Controls()
        self.facts = gr.HTML(label="Facts", elem_id="facts")

    def _wire(self) -> None:
        shown = [self.text, self.levels, self.status]
        buttons = [self.generate, self.stop, self.undo, self.redo, self.again, self.reuse]
        columns = [column for column, _ in self.boxes]
        boxes = [box for _, box in self.boxes]
        chosen = [self.text, self.model, self.length, self.seed, self.count, *self.controls.components]
        at_rest = [*buttons, self.status, self.text, self.levels, self.branches, self.versions]

        writing = []
        for trigger, function, inputs in (
            (self.generate.click, self.on_generate, chosen),
            (self.again.click, self.on_regenerate, chosen),
            (self.panel.click, self.on_pick, chosen),
        ):
            # The listeners of one trigger run one after the other.
            trigger(None, None, [*buttons, self.status], js=_ON_START, **INTERNAL)
            writing.append(
                trigger(
                    function,
                    inputs,
                    [*shown, self.choice, *columns, *boxes, self.panel],
                    concurrency_id="write",
                    concurrency_limit=WRITERS_AT_ONCE,
                    **INTERNAL,
                )
            )
        self.stop.click(None, cancels=writing)
        moves = []
        for trigger, function, inputs in (
            (self.undo.click, self.on_undo, [self.text]),
            (self.redo.click, self.on_redo, [self.text]),
            (self.versions.input, self.on_version, [self.versions, self.text]),
            *((take.click, self._taker(number), [self.text]) for number, take in enumerate(self.takes)),
        ):
            trigger(None, None, [self.generate, self.again], js=_ON_MOVE, **INTERNAL)
            moves.append(trigger(function, inputs, [*shown, self.choice, self.panel], **INTERNAL))
        for event in [*writing, *moves]:
            # Gradio counts a cancellation as a failure, and does not run `then` after an error.
            for ended in (event.success, event.failure):
                ended(
                    self.at_rest, [self.status, self.text, self.model, self.copied], at_rest, js=_ON_END,
                    **INTERNAL,
                )  # fmt: skip
        self.text.change(None, js="() => lm.changed()", **INTERNAL)
        self.levels.click(self.on_place, [self.text, self.model], self.panel, **INTERNAL)
        self.reuse.click(self.on_reuse, None, self.seed, **INTERNAL)
        self.colours.change(None, self.colours, js=_ON_COLOURS, **INTERNAL)
        self.copied.input(self.on_copied, [self.text, self.model, self.copied], self.levels, **INTERNAL)

    def on_generate(
        self, request: gr.Request, text: str, name: str, length: int, seed: int, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Go on from the end of the text."""
        desk = self.desks.of(request.session_hash)
        with show_errors():
            model = self.models.load(name)
            _say_what_is_odd(model, checked_text(text))
            desk.note(text)
            start = desk.draft(text, model)
            yield from self._turn(desk, start, desk.now, length, seed, count, controls)

    def on_regenerate(
        self, request: gr.Request, text: str, name: str, length: int, seed: int, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Write the end of the text once more, with another seed."""
        desk = self.desks.of(request.session_hash)
        with show_errors():
            model = self.models.load(name)
            desk.note(text)
            before = _start_of_the_last_turn(desk.now)
            if not text.startswith(before.text):
                gr.Info(translate("This goes on from the text before your changes; Undo brings them back."))
            start = desk.draft(before.text, model)
            yield from self._turn(desk, start, before, length, None, count, controls)

    def on_pick(
        self, request: gr.Request, event: gr.EventData, text: str, name: str, length: int, seed: int,
        count: int, *controls: Any,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Put another token at a place, and go on from there; at the end of the text, only add it."""
        desk = self.desks.of(request.session_hash)
        with show_errors():
            model = self.models.load(name)
            desk.note(checked_text(text))
            place, token = event_int(event, "start"), event_int(event, "token")
            start = desk.draft(text, model).with_token(place, token)
            if place >= len(text):
                desk.add(Version(start, start=desk.now, seed=desk.now.seed))
                yield [
                    *_shown(start),
                    gr.skip(),
                    gr.skip(),
                    *_SKIP,
                    *_SKIP,
                    alternatives.found(start, len(start.text)),
                ]
                return
            yield from self._turn(desk, start, desk.now, length, seed, 1, controls)

    def _turn(
        self, desk: Desk, start: Draft, before: Version, length: Any, seed: Any, count: Any, controls: Any
    ) -> Iterator[list[Any]]:
        """Let the model write what comes after `start`, one or several times."""
        length, seed = checked_length(length), checked_seed(seed)
        count = max(1, min(MAX_CANDIDATES, int(count or 1)))
        drafts = [start.fork() for _ in range(count)]
        seeds = [seed + number for number in range(count)]
        versions = [Version(d, start=before, seed=s) for d, s in zip(drafts, seeds, strict=True)]
        # Several are shown beside each other, without the text before them.
        visible = [gr.Column(visible=number < count > 1) for number in range(MAX_CANDIDATES)]
        layout, panel = [gr.Row(visible=count > 1), *visible], None  # both only once
        with closing(continue_drafts(drafts, seeds, length, **self.controls.settings(controls))) as steps:
            for progress in steps:
                if panel is None:  # with the first words there is a version that Stop can rest at
                    desk.candidates = versions if count > 1 else []
                    if count == 1:
                        desk.add(versions[0])
                line = _line(progress, seed)
                if count == 1:
                    main, boxes = [*_shown(drafts[0]), line], _SKIP
                else:
                    texts = [draft.text[len(start.text) :] for draft in drafts]
                    main = [gr.skip(), gr.skip(), line]
                    boxes = [*texts, *[""] * (MAX_CANDIDATES - count)]
                yield [*main, *layout, *boxes, panel]
                layout, panel = [gr.skip(), *_SKIP], gr.skip()

    def _taker(self, number: int) -> Any:
        def take(text: str, request: gr.Request) -> list[Any]:
            """Go on with one of the candidates."""
            desk = self.desks.of(request.session_hash)
            if number < len(desk.candidates):
                desk.note(text)
                desk.add(desk.candidates[number])
                desk.candidates = []
            return self._move(desk.now)

        return take

    def on_undo(self, text: str, request: gr.Request) -> list[Any]:
        """Go back to the version before."""
        return self._move(self.desks.of(request.session_hash).undo(text))

    def on_redo(self, text: str, request: gr.Request) -> list[Any]:
        """Go on to the version after."""
        return self._move(self.desks.of(request.session_hash).redo(text))

    def on_version(self, number: int | None, text: str, request: gr.Request) -> list[Any]:
        """Go to another branch."""
        return self._move(
            self.desks.of(request.session_hash).go_to(-1 if number is None else int(number), text)
        )

    def _move(self, version: Version) -> list[Any]:
        levels = version.draft.levels if version.draft else ""
        return [version.text, _units(version.text, levels), "", gr.Row(visible=False), None]

    def on_place(self, text: str, name: str, request: gr.Request, event: gr.EventData) -> dict[str, Any]:
        """What else could stand where the caret is."""
        with show_errors():
            units = text.encode("utf-16-le")[: 2 * max(0, event_int(event, "place"))]
            place = len(units.decode("utf-16-le", "ignore"))
            draft = self.desks.of(request.session_hash).draft(text, self.models.load(name))
            return alternatives.found(draft, place)

    def leave(self, request: gr.Request) -> None:
        """Forget the desk of a person who has left."""
        self.desks.clear(request.session_hash)

    def on_reuse(self, request: gr.Request) -> int | None:
        """The seed of the version that is shown."""
        return self.desks.of(request.session_hash).now.seed

    def on_copied(self, text: str, name: str, copied: bool, request: gr.Request) -> str:
        """Mark what is copied from the training text, or do not."""
        with show_errors():
            return self._levels(self.desks.of(request.session_hash), text, name, copied)

    def _levels(self, desk: Desk, text: str, name: str, copied: bool) -> str:
        draft = desk.now.draft
        levels = draft.levels if draft and draft.text == text else ""
        if copied and text:
            levels, searched = mark_copied(self.models.folder(name), text, levels)
            if searched < 1:
                gr.Info(
                    translate(
                        "Only {share:.0%} of the training text was searched: it is long.", share=searched
                    )
                )
        return _units(text, levels)

    def at_rest(self, line: str, text: str, name: str, copied: bool, request: gr.Request) -> list[Any]:
        """All that changes when the writing has come to its end, or was stopped."""
        desk = self.desks.of(request.session_hash)
        now, written = desk.now, desk.now.seed is not None
        # What was made in the last moment before Stop was not yet shown.
        text = now.text if now.text.startswith(text) and now.draft else text
        try:
            levels = self._levels(desk, text, name, copied)
        except UserError as error:
            gr.Warning(escape(str(error)))
            levels = self._levels(desk, text, name, False)
        ends = [(_snippet(number, version), number) for number, version in desk.ends()]
        current = next((n for n, v in desk.ends() if v is now), None)
        return [
            gr.Button(localized("Continue") if written else localized("Generate"), interactive=True),
            gr.Button(interactive=False),  # Stop
            gr.Button(interactive=now.before is not None),
            gr.Button(interactive=now.after is not None),
            gr.Button(interactive=written),
            gr.Button(interactive=written),
            translate(HINT) if line in ("…", "") else line,
            text,
            levels,
            gr.Accordion(visible=len(ends) > 1),
            gr.Radio(ends, value=current),
        ]


def build(models: ModelRegistry, model: gr.Dropdown) -> Editor:
    """Lay out the tab in the Blocks around it; `model` is where a model is chosen."""
    return Editor(models, model)


def _start_of_the_last_turn(version: Version) -> Version:
    """The version from which the model last went on."""
    while version.start and version.seed is None:
        version = version.start
    return version.start or version


def _shown(draft: Draft) -> list[str]:
    return [draft.text, _units(draft.text, draft.levels)]


def _units(text: str, levels: str) -> str:
    """Levels for the browser, which counts in units of UTF-16."""
    if text.isascii() or max(text, default="") <= "\uffff":
        return levels
    return "".join(
        level * (1 + (character > "\uffff")) for character, level in zip(text, levels, strict=False)
    )


def _line(progress: Progress, seed: int) -> str:
    line = translate(
        "seed {seed} · {tokens:,} tokens · {speed:,.0f} tokens/s",
        seed=seed, tokens=progress.tokens, speed=progress.tokens_per_second,
    )  # fmt: skip
    return line + (f" · {translate('the model ended the text')}" if progress.ended else "")


def _snippet(number: int, version: Version) -> str:
    end = " ".join(version.text[-60:].split())
    return f"{number} · {len(version.text):,} · …{end}"


def _say_what_is_odd(model: LanguageModel, text: str) -> None:
    if not text:
        gr.Info(translate("Empty prompt: the model starts a text of its own."))
    unknown = model.tokenizer.unknown_in(restore_controls(model, text))
    if unknown:
        names = ", ".join(map(repr, unknown[:8])) + (" …" if len(unknown) > 8 else "")
        gr.Warning(
            escape(translate("The model does not know {names}; it reads <unk> in their place.", names=names))
        )
