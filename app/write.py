"""The Write tab: one text, which the person and the model continue by turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from app.models import Models
from app.writing import (
    USUAL_CONTINUATION,
    Past,
    as_meant,
    checked_length,
    checked_seed,
    checked_text,
    continuation,
)
from lm.config import SamplingConfig
from lm.errors import UserError
from lm.language_model import LanguageModel

WRITERS_AT_ONCE = 32
HINT = "Generate goes on from the end of the text. Ctrl-Enter generates, Esc stops."
WAITING = "Waiting for the model…"
_USUAL = SamplingConfig()
# Silent updates of one another's fields are no part of what other programs may call.
_INTERNAL = {"show_progress": "hidden", "api_visibility": "private"}

# What runs in the browser. At the start, before the server answers: what a person typed while the
# model writes would be lost with its next words, so the text can only be read until it has ended.
_ON_START = """() => {
    const text = document.querySelector("#text textarea");
    text.readOnly = true;
    text.scrollTop = text.followed = text.scrollHeight - text.clientHeight;
    const set = (interactive) => ({__type__: "update", interactive});
    return [set(false), set(true), set(false), set(false), set(false), "WAITING"];
}""".replace("WAITING", WAITING)
_ON_END = """(...inputs) => {
    document.querySelector("#text textarea").readOnly = false;
    return inputs;
}"""
# With each new part: show the end, unless the person has scrolled back to read.
_ON_CHANGE = """() => {
    const text = document.querySelector("#text textarea");
    if (!text.readOnly || text.scrollTop < text.followed - 4) return;
    text.scrollTop = text.followed = text.scrollHeight - text.clientHeight;
}"""

Shown = tuple[str, str, Past]


def build(models: Models, model: gr.Dropdown) -> None:
    """Lay out the tab in the Blocks around it; `model` is where a model is chosen."""
    past = gr.State(Past())
    text = gr.Textbox(
        label="Text",
        elem_id="text",
        placeholder="Type how the text begins, then press Generate.",
        lines=16,
        max_lines=16,
        autoscroll=False,
        html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
    )
    with gr.Row(elem_id="actions"):
        generate_button = gr.Button("Generate", variant="primary", elem_id="generate", min_width=60)
        stop_button = gr.Button("Stop", elem_id="stop", interactive=False, min_width=60)
        undo_button = gr.Button("Undo", elem_id="undo", interactive=False, min_width=60)
        again_button = gr.Button("Regenerate", elem_id="regenerate", interactive=False, min_width=60)
    with gr.Row(elem_id="made"):
        status = gr.Markdown(HINT, label="Status", elem_id="status")
        reuse_button = gr.Button("Use this seed again", size="sm", elem_id="reuse", interactive=False)
    with gr.Group(elem_id="settings"):
        with gr.Row():
            temperature = gr.Slider(
                0, 2, _USUAL.temperature, step=0.05, label="Temperature", info="0: the likeliest",
                min_width=260,
            )  # fmt: skip
            top_p = gr.Slider(
                0.01, 1, _USUAL.top_p, step=0.01, label="Top-p", info="1: all tokens", min_width=260
            )
        with gr.Row():
            top_k = gr.Number(_USUAL.top_k, precision=0, label="Top-k", info="0: all tokens", min_width=90)
            length = gr.Number(
                USUAL_CONTINUATION, precision=0, label="Length", info="in tokens", min_width=90
            )
            # An empty number would be shown, and sent, as 0.
            seed = gr.Number(-1, precision=0, label="Seed", info="-1: random", min_width=90)

    def generate(
        text: str,
        model: str | None,
        temperature: float,
        top_k: int | None,
        top_p: float,
        length: int | None,
        seed: int | None,
        past: Past,
    ) -> Iterator[Shown]:
        """Continue a text with a model; yields the text as it grows and a line on its making.

        top_k 0 and top_p 1 leave all tokens in the choice; length counts tokens; an empty seed, or
        -1, is a random one. The same seed and settings give the same text.
        """
        sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p}
        yield from _turn(models, model, text, text, past, length, seed, sampling)

    def regenerate(
        text: str,
        model: str | None,
        temperature: float,
        top_k: int | None,
        top_p: float,
        length: int | None,
        past: Past,
    ) -> Iterator[Shown]:
        """Write the last continuation once more, with another seed."""
        start = past.turns[-1].start if past.turns else text
        if not text.startswith(start):
            gr.Info("This goes on from the text as it was before your changes; Undo brings them back.")
        sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p}
        yield from _turn(models, model, text, start, past, length, None, sampling)

    choices = [text, model, temperature, top_k, top_p, length]
    buttons = [generate_button, stop_button, undo_button, again_button, reuse_button]
    writing = []
    for button, function, inputs in (
        (generate_button, generate, [*choices, seed, past]),
        (again_button, regenerate, [*choices, past]),
    ):
        # The listeners of one button run one after the other.
        button.click(None, None, [*buttons, status], js=_ON_START, **_INTERNAL)
        writing.append(
            button.click(
                function,
                inputs,
                [text, status, past],
                api_name=function.__name__,
                concurrency_id="write",
                concurrency_limit=WRITERS_AT_ONCE,
                show_progress="hidden",
            )
        )
    text.change(None, js=_ON_CHANGE, **_INTERNAL)
    stop_button.click(None, cancels=writing)
    undone = undo_button.click(_undo, [text, past], [text, status, past], **_INTERNAL)
    for event in [*writing, undone]:
        # Gradio counts a cancellation as a failure, and does not run `then` after an error.
        for ended in (event.success, event.failure):
            ended(_at_rest, [past, status], [*buttons, status], js=_ON_END, **_INTERNAL)
    reuse_button.click(lambda past: past.seed, past, seed, **_INTERNAL)


def _turn(
    models: Models,
    name: str | None,
    before: str,
    start: str,
    past: Past,
    length: int | None,
    seed: int | None,
    sampling: dict[str, Any],
) -> Iterator[Shown]:
    """Let the model continue `start`; `before` is what Undo will bring back."""
    with _told_to_the_person():
        length, seed = checked_length(length), checked_seed(seed)
        model = models.load(name)
        _say_what_is_odd(model, as_meant(model, checked_text(start)))
        past = past.with_turn(before, start, seed)
        for text, line in continuation(model, start, seed=seed, max_new_tokens=length, **sampling):
            yield text, line, past


def _undo(text: str, past: Past) -> Shown:
    if not past.turns:
        return text, HINT, past
    return past.turns[-1].before, HINT, past.without_last()


def _at_rest(past: Past, line: str) -> list[Any]:
    """The five buttons and the status line while nothing is being written."""
    written = bool(past.turns)
    return [
        gr.Button("Continue" if written else "Generate", interactive=True),
        gr.Button(interactive=False),  # Stop
        gr.Button(interactive=written),
        gr.Button(interactive=written),
        gr.Button(interactive=past.seed is not None),
        HINT if line == WAITING else line,
    ]


def _say_what_is_odd(model: LanguageModel, text: str) -> None:
    if not text:
        gr.Info("Empty prompt: the model starts a text of its own.")
    unknown = model.tokenizer.unknown_in(text)
    if unknown:
        names = ", ".join(map(repr, unknown[:8])) + (" …" if len(unknown) > 8 else "")
        gr.Warning(escape(f"The model does not know {names}; it reads <unk> in their place."))


@contextmanager
def _told_to_the_person() -> Iterator[None]:
    """A UserError becomes a message on the page. Messages are HTML there, so it is escaped."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error
