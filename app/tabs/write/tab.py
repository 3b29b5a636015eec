"""The Write tab: one text, which the user and the model write in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown

from ...continuation import (
    MAX_CANDIDATES,
    checked_length,
    checked_seed,
    checked_text,
    continue_drafts,
)
from ...draft import Draft, restore_controls
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, event_int, show_errors, show_info, show_warning
from ...ui.i18n import localized, translate
from .alternatives import alternatives_values
from .display import draft_updates, highlights_value, status_line, version_label, version_updates
from .history import Histories, History, Version
from .layout import HINT, WriteLayout
from .originality import copied_spans

WRITERS_AT_ONCE = 32
_BUSY = "…"  # the status until the first tokens arrive
_SKIP = [gr.skip()] * MAX_CANDIDATES

# JavaScript of the events. It runs before the server responds; `lm` is defined in static/page.js.

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
    """The event handlers of the tab and its components, which are in `layout`."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.histories = models, model, Histories()
        self.layout = WriteLayout()
        self._wire()

    def _wire(self) -> None:
        layout = self.layout
        generations = [
            self._wire_generation(layout.generate.click, self.on_generate),
            self._wire_generation(layout.regenerate.click, self.on_regenerate),
            self._wire_generation(layout.panel.click, self.on_alternative),
            self._wire_generation(layout.panel.retry, self.on_reroll),
        ]
        layout.stop.click(None, cancels=generations)
        self._wire_move(layout.undo.click, self.on_undo, [layout.text])
        self._wire_move(layout.redo.click, self.on_redo, [layout.text])
        self._wire_move(layout.versions.input, self.on_version, [layout.versions, layout.text])
        for number, take in enumerate(layout.takes):
            self._wire_move(take.click, self._take(number), [layout.text])
        layout.text.change(None, js="() => lm.textChanged()", **INTERNAL)
        layout.panel.select(
            self.on_position,
            [layout.text, self.model],
            layout.panel,
            trigger_mode="always_last",
            concurrency_limit=WRITERS_AT_ONCE,
            **INTERNAL,
        )
        layout.reuse.click(self.on_reuse, None, layout.seed, **INTERNAL)
        layout.colors.change(None, layout.colors, js=_COLORS_JS, **INTERNAL)
        layout.copied.input(
            self.on_copied, [layout.text, self.model, layout.copied], layout.highlights, **INTERNAL
        )

    def _wire_generation(self, trigger: Any, function: Callable[..., Any]) -> Any:
        """Call a generator when an event is triggered; returns what can be canceled."""
        layout = self.layout
        # The listeners of a trigger run in this order.
        trigger(None, None, [*layout.buttons, layout.status], js=_START_JS, **INTERNAL)
        event = trigger(
            function,
            [layout.text, self.model, layout.length, layout.seed, layout.count, *layout.controls.components],
            [*layout.display, *layout.columns, *layout.boxes, layout.panel],
            concurrency_id="write",
            concurrency_limit=WRITERS_AT_ONCE,
            **INTERNAL,
        )
        self._wire_finish(event)
        return event

    def _wire_move(self, trigger: Any, function: Callable[..., Any], inputs: list[Any]) -> None:
        """Call a function that moves to another version when an event is triggered."""
        layout = self.layout
        trigger(None, None, [layout.generate, layout.regenerate], js=_MOVE_JS, **INTERNAL)
        self._wire_finish(trigger(function, inputs, [*layout.display, layout.panel], **INTERNAL))

    def _wire_finish(self, event: Any) -> None:
        layout = self.layout
        # Gradio counts a cancellation as a failure, and does not run `then` after an error.
        for finished in (event.success, event.failure):
            finished(
                self.on_finished,
                [layout.status, layout.text, self.model, layout.copied],
                [
                    *layout.buttons,
                    layout.status,
                    layout.text,
                    layout.highlights,
                    layout.branches,
                    layout.versions,
                ],
                js=_END_JS,
                **INTERNAL,
            )

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
            last = history.last_generated()
            draft = last.start(model) if last else history.draft(text, model)
            if not text.startswith(draft.text):
                show_info(translate("Continuing from before your edits. Undo restores them."))
            parent = last.parent if last else history.current
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
                parent = history.beginning_of(draft.text)
                yield from self._continue(history, draft, parent, length, seed, 1, controls)
            else:
                current = history.current
                history.add(Version(draft, parent=current, seed=current.seed, kept=len(draft.session)))
                main: list[Any] = draft_updates(draft)
                for next_tokens in alternatives_values(draft, len(draft.text)):
                    yield [*main, gr.skip(), gr.skip(), *_SKIP, *_SKIP, next_tokens]
                    main = [gr.skip(), gr.skip()]

    def on_reroll(
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
        """Replace the text after a position by another continuation, with another seed."""
        history = self._history(request)
        with show_errors():
            model = self.models.load(name)
            history.record(checked_text(text))
            draft = history.draft(text, model).before(event_int(event, "start"))
            parent = history.beginning_of(draft.text)
            yield from self._continue(history, draft, parent, length, None, count, controls)

    def _continue(
        self,
        history: History,
        start: Draft,
        parent: Version | None,
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
        versions = [
            Version(draft, parent=parent, seed=seed, kept=len(start.session))
            for draft, seed in zip(drafts, seeds, strict=True)
        ]
        # The first update also shows or hides the candidates and clears the alternatives.
        visible = [gr.Column(visible=number < count > 1) for number in range(MAX_CANDIDATES)]
        visibility: list[Any] = [gr.Row(visible=count > 1), *visible]
        panel: Any = None
        first = True
        settings = self.layout.controls.settings(controls)
        with closing(continue_drafts(drafts, seeds, length, **settings)) as steps:
            for progress in steps:
                if first:  # from now on there is something to keep when the user presses Stop
                    history.candidates = versions if count > 1 else []
                    if count == 1:
                        history.add(versions[0])
                status = status_line(progress, seed)
                if count == 1:
                    main, boxes = [*draft_updates(drafts[0]), status], _SKIP
                else:
                    texts = [draft.text[len(start.text) :] for draft in drafts]
                    main = [gr.skip(), gr.skip(), status]
                    boxes = [*texts, *[""] * (MAX_CANDIDATES - count)]
                yield [*main, *visibility, *boxes, panel]
                visibility, panel, first = [gr.skip(), *_SKIP], gr.skip(), False

    def _take(self, number: int) -> Callable[..., list[Any]]:
        def take(text: str, request: gr.Request) -> list[Any]:
            """Continue with one of the candidates."""
            history = self._history(request)
            if number < len(history.candidates):
                history.record(text)
                history.add(history.candidates[number])
                history.candidates = []
            return version_updates(history.current)

        return take

    def on_undo(self, text: str, request: gr.Request) -> list[Any]:
        """Return to the previous version."""
        return version_updates(self._history(request).undo(text))

    def on_redo(self, text: str, request: gr.Request) -> list[Any]:
        """Move to the next version."""
        return version_updates(self._history(request).redo(text))

    def on_version(self, number: int | None, text: str, request: gr.Request) -> list[Any]:
        """Move to another branch."""
        return version_updates(self._history(request).go_to(-1 if number is None else int(number), text))

    def on_position(
        self, text: str, name: str, request: gr.Request, event: gr.EventData
    ) -> Iterator[dict[str, Any]]:
        """Show the alternatives at the cursor."""
        with show_errors():
            # The browser counts UTF-16 code units, of two bytes each.
            before = text.encode("utf-16-le")[: 2 * max(0, event_int(event, "position"))]
            position = len(before.decode("utf-16-le", "ignore"))
            draft = self._history(request).draft(text, self.models.load(name))
            yield from alternatives_values(draft, position)

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
        choices = [(version_label(number, version), number) for number, version in branches]
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
        return highlights_value(text, levels, spans)


def build(models: ModelRegistry, model: gr.Dropdown) -> WriteTab:
    """Add the tab to the current Blocks; `model` is the dropdown that selects the model."""
    return WriteTab(models, model)


def _warn_about_prompt(model: LanguageModel, text: str) -> None:
    if not text:
        show_info(translate("Empty prompt: the model starts from scratch."))
    unknown = describe_unknown(model.tokenizer, restore_controls(model, text))
    if unknown:
        show_warning(translate("The model does not know {names} and reads <unk> instead.", names=unknown))
