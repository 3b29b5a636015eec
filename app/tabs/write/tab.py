"""The Write tab: one text, which the user and the model write in turns.

The browser has the text and its versions (static/versions.js, static/documents.js); the server only keeps
what the models have read.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown

from ...continuation import (
    MAX_CANDIDATES,
    MAX_STORY,
    checked_length,
    checked_seed,
    checked_text,
    continue_drafts,
)
from ...draft import Draft, restore_controls
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, event_int, show_errors, show_info, show_warning
from ...ui.i18n import translate
from .alternatives import alternatives_values
from .copied_text import copied_spans
from .display import status_line, utf16_spans, written_value
from .drafts import Drafts
from .layout import WriteLayout

WRITERS_AT_ONCE = 32
_BUSY = "…"  # the status until the first tokens arrive
_SKIP = [gr.skip()] * MAX_CANDIDATES
_PROGRESS_SECONDS = 0.5  # between two messages about how much of a text has been read

# JavaScript of the events. It runs before the server responds; `lm` is defined in static/*.js.

# Enable Stop, disable the other buttons.
_START_JS = """() => {{
    lm.writing.begin("{kind}");
    const set = (interactive) => ({{__type__: "update", interactive}});
    return [set(false), set(true), set(false), set(false), set(false), set(false), "{busy}"];
}}"""
# Gradio's copy of the text is older while the model writes.
_WITH_BASE_JS = "(text, ...others) => [lm.writing.base, ...others]"
_WITH_TEXT_JS = "(text, ...others) => [lm.editor.text, ...others]"
_SHOW_VERSIONS_JS = "() => void lm.bringIntoView('#versions')"
_COLORS_JS = "(on) => void document.body.classList.toggle('no-colors', !on)"


@dataclass(frozen=True)
class WriteRequest:
    """What the user asks for when the model is to write."""

    session: str
    model: str  # its name
    text: str  # what to continue
    length: float | None
    seed: float | None
    count: float | None  # of candidates
    controls: Sequence[Any]  # the values of the sampling controls


class WriteTab:
    """The event handlers of the tab and its components, which are in `layout`, laid out in the enclosing
    Blocks. The dropdown `model` selects the model."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.drafts = models, model, Drafts()
        self.layout = WriteLayout()
        self._wire()

    def _wire(self) -> None:
        layout = self.layout
        generations = [
            self._wire_generation(layout.generate.click, "generate", self.on_generate),
            self._wire_generation(layout.regenerate.click, "regenerate", self.on_regenerate),
            self._wire_generation(layout.panel.click, "pick", self.on_alternative),
            self._wire_generation(layout.panel.retry, "reroll", self.on_reroll),
        ]
        layout.stop.click(None, cancels=generations)
        moves = [(layout.undo.click, "undo()"), (layout.redo.click, "redo()")]
        moves += [(take.click, f"take({number})") for number, take in enumerate(layout.takes)]
        for trigger, call in moves:
            trigger(None, None, layout.shown, js=f"() => lm.writing.{call}", **INTERNAL)
        go_to = "(id) => lm.writing.goTo(id)"
        layout.versions.input(None, layout.versions, layout.shown, js=go_to, **INTERNAL)
        layout.branches.expand(None, js=_SHOW_VERSIONS_JS, **INTERNAL)
        layout.text.change(None, js="() => lm.editor.sync()", **INTERNAL)
        layout.panel.select(
            self.on_position,
            [layout.text, self.model],
            layout.panel,
            js=_WITH_TEXT_JS,
            trigger_mode="always_last",
            concurrency_limit=WRITERS_AT_ONCE,
            **INTERNAL,
        )
        layout.reuse.click(None, None, layout.seed, js="() => lm.writing.seed()", **INTERNAL)
        layout.colors.change(None, layout.colors, js=_COLORS_JS, **INTERNAL)
        for look in (layout.copied.input, layout.spans.click):
            look(
                self.on_copied,
                [layout.text, self.model, layout.copied],
                layout.spans,
                js=_WITH_TEXT_JS,
                **INTERNAL,
            )

    def open_documents(self, page: gr.Blocks, restore: Callable[[Any], Any], selected: list[Any]) -> Any:
        """Show the document of the browser when the page is loaded, and each one that the user opens; returns
        the event after the page is loaded.

        `restore(name)` returns updates for `selected`, whatever the browser stored as the name of the model.
        """
        layout = self.layout
        names = json.dumps([component.elem_id for component in layout.settings])
        _, loaded = [
            trigger(
                restore,
                self.model,
                selected,
                js="async () => [await lm.documents.load()]",
                preprocess=False,  # it would reject the names of models that are newer than the server
                **INTERNAL,
            ).then(
                None,
                layout.settings,
                [layout.document.name, *layout.settings, *layout.shown],
                js=f"(...values) => [...lm.documents.updates({names}, values), ...lm.writing.opened()]",
                **INTERNAL,
            )
            for trigger in (layout.document.opened.change, page.load)
        ]
        gr.on(
            [component.change for component in (self.model, *layout.settings)],
            None,
            [self.model, *layout.settings],
            js=f"(model, ...values) => lm.documents.storeSettings({names}, model, values)",
            **INTERNAL,
        )
        return loaded

    def _wire_generation(self, trigger: Any, kind: str, function: Callable[..., Any]) -> Any:
        """Call a generator when an event is triggered; returns what can be canceled."""
        layout = self.layout
        buttons = layout.state[:6]
        # The listeners of a trigger run in this order.
        trigger(
            None,
            None,
            [*buttons, layout.status],
            js=_START_JS.format(kind=kind, busy=_BUSY),
            **INTERNAL,
        )
        event = trigger(
            self._listener(function),
            [layout.text, self.model, layout.length, layout.seed, layout.count, *layout.controls.components],
            [layout.written, layout.status, layout.candidates, *layout.columns, *layout.boxes, layout.panel],
            js=_WITH_BASE_JS,
            concurrency_id="write",
            concurrency_limit=WRITERS_AT_ONCE,
            **INTERNAL,
        )
        # Gradio counts a cancellation as a failure, and does not run `then` after an error.
        for finished in (event.success, event.failure):
            finished(
                None,
                layout.status,
                [*layout.state, layout.status],
                js=f"async (status) => [...(await lm.writing.end()), status === '{_BUSY}' ? '' : status]",
                **INTERNAL,
            )
        return event

    def _listener(self, function: Callable[..., Iterator[list[Any]]]) -> Callable[..., Iterator[list[Any]]]:
        """The listener of an event that generates text: it reads the text and calls `function` with what the
        user asked for, the draft of the text, and the event."""

        def listener(
            http_request: gr.Request,
            event: gr.EventData,
            text: str,
            name: str,
            length: float | None,
            seed: float | None,
            count: float | None,
            *controls: Any,
        ) -> Iterator[list[Any]]:
            with show_errors():
                request = WriteRequest(
                    http_request.session_hash or "", name, text, length, seed, count, controls
                )
                draft = yield from self._read(request)
                yield from function(request, draft, event)

        return listener

    def on_generate(self, request: WriteRequest, draft: Draft, event: gr.EventData) -> Iterator[list[Any]]:
        """Continue the text."""
        _warn_about_prompt(draft.model, request.text)
        yield from self._continue(request, request.text, draft)

    def on_regenerate(self, request: WriteRequest, draft: Draft, event: gr.EventData) -> Iterator[list[Any]]:
        """Continue the text, which the browser has cut where the last continuation starts."""
        yield from self._continue(replace(request, seed=None), request.text, draft)

    def on_alternative(self, request: WriteRequest, draft: Draft, event: gr.EventData) -> Iterator[list[Any]]:
        """Replace a token and continue from there; at the end of the text, only append the token."""
        position = event_int(event, "start")
        changed = draft.with_token(position, event_int(event, "token"))
        if position < len(request.text):
            base = changed.text[: changed.starts[-1]]
            yield from self._continue(replace(request, count=1), base, changed)
        else:
            self.drafts.keep(request.session, [changed])
            picked = changed.text[len(request.text) :]
            value = written_value(
                secrets.token_hex(8), request.model, request.text, [changed], [None], picked
            )
            for next_tokens in alternatives_values(changed, len(changed.text)):
                yield [value, gr.skip(), gr.skip(), *_SKIP, *_SKIP, next_tokens]

    def on_reroll(self, request: WriteRequest, draft: Draft, event: gr.EventData) -> Iterator[list[Any]]:
        """Replace the text after a position by another continuation, with another seed."""
        draft = draft.before(event_int(event, "start"))
        yield from self._continue(replace(request, seed=None), draft.text, draft)

    def _read(self, request: WriteRequest) -> Generator[list[Any], None, Draft]:
        """A draft of the text; yields how much has been read, if that takes longer."""
        text, model = checked_text(request.text, MAX_STORY), self.models.load(request.model)
        draft, updated = self.drafts.closest(request.session, text, model).fork(), time.monotonic()
        with closing(draft.read(text)) as steps:
            for share in steps:
                if time.monotonic() - updated >= _PROGRESS_SECONDS:
                    updated = time.monotonic()
                    status = translate("The model reads the text: {share:.0%}", share=share)
                    yield [gr.skip(), status, gr.skip(), *_SKIP, *_SKIP, gr.skip()]
        self.drafts.keep(request.session, [draft])
        return draft

    def _continue(self, request: WriteRequest, base: str, start: Draft) -> Iterator[list[Any]]:
        """Continue `start`, which begins with `base`, once or several times; yields updates."""
        length, seed = checked_length(request.length), checked_seed(request.seed)
        count = max(1, min(MAX_CANDIDATES, int(request.count or 1)))
        drafts = [start.fork() for _ in range(count)]
        seeds = [seed + number for number in range(count)]
        run, picked = secrets.token_hex(8), start.text[len(base) :]
        # The first update also shows or hides the candidates and clears the alternatives.
        visible = [gr.Column(visible=number < count > 1) for number in range(MAX_CANDIDATES)]
        visibility: list[Any] = [gr.Row(visible=count > 1), *visible]
        panel: Any = None
        settings = self.layout.controls.settings(request.controls)
        with closing(continue_drafts(drafts, seeds, length, **settings)) as steps:
            try:
                for progress in steps:
                    value = written_value(run, request.model, base, drafts, seeds, picked)
                    texts = [draft.text[len(start.text) :] for draft in drafts if count > 1]
                    boxes = [*texts, *[""] * (MAX_CANDIDATES - count)] if count > 1 else _SKIP
                    yield [value, status_line(progress, seed), *visibility, *boxes, panel]
                    visibility, panel = [gr.skip(), *_SKIP], gr.skip()
            finally:
                self.drafts.keep(request.session, drafts)

    def on_position(
        self, text: str, name: str, request: gr.Request, event: gr.EventData
    ) -> Iterator[dict[str, Any]]:
        """Show the alternatives at the cursor."""
        with show_errors():
            # The browser counts UTF-16 code units, of two bytes each.
            before = text.encode("utf-16-le")[: 2 * max(0, event_int(event, "position"))]
            position = len(before.decode("utf-16-le", "ignore"))
            model = self.models.load(name)
            session = request.session_hash or ""
            draft = self.drafts.closest(session, checked_text(text, MAX_STORY), model).with_text(text)
            self.drafts.keep(session, [draft])
            yield from alternatives_values(draft, position)

    def on_copied(self, text: str, name: str, copied: bool) -> list[tuple[int, int]]:
        """The spans of the text that are copied from the training data; none unless the user wants them
        underlined."""
        if not (copied and text):
            return []
        try:
            spans, searched = copied_spans(self.models.folder(name), checked_text(text, MAX_STORY))
        except UserError as error:
            show_warning(as_sentence(error))
            return []
        if searched < 1:
            show_info(
                translate("The training text is long: only {share:.0%} of it was searched.", share=searched)
            )
        return utf16_spans(text, spans)

    def forget(self, session: str | None) -> None:
        """Drop what the models have read in a closed session."""
        if session:
            self.drafts.forget(session)


def _warn_about_prompt(model: LanguageModel, text: str) -> None:
    if not text:
        show_info(translate("Empty prompt: the model starts from scratch."))
    unknown = describe_unknown(model.tokenizer, restore_controls(model, text))
    if unknown:
        show_warning(translate("The model does not know {names} and reads <unk> instead.", names=unknown))
