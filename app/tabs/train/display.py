"""What the Train tab shows about a text, an estimate and a job, as HTML."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from lm.console.terminal import duration
from lm.console.wording import format_bytes
from lm.training.plot import loss_curve

from ...jobs.estimate import Estimate, Preview
from ...jobs.job import QUEUED, RUNNING
from ...jobs.progress import JobProgress, Sample
from ...ui.i18n import translate
from ...ui.messages import in_words_of_the_page
from ...ui.model_facts import curve_image
from .reading import reading_rows, warning

_QUOTING = ("Example", "Format", "Most common", "Least common")
_MAX_SAMPLES = 40  # on the slider


def report(preview: Preview, settings: dict[str, Any]) -> str:
    """What a text contains, and what training on it would take."""
    rows = {in_words_of_the_page(name): _fact(name, value) for name, value in preview.rows.items()}
    rows |= reading_rows(settings)
    if "Column" in preview.rows:
        rows.pop(translate("Text column"), None)  # as the data report says
    if preview.estimate:
        rows |= _estimate_rows(preview.estimate)
    return _table(rows) + warnings(preview.warnings)


def _fact(name: str, value: str) -> str:
    """A row of the data report; the parts of the text that it quotes stay as they are."""
    return _unbroken(value) if name.startswith(_QUOTING) else in_words_of_the_page(value)


def _unbroken(value: str) -> str:
    """'e 85,496  t 60,384', without line breaks between a character and its count."""
    if "  " not in value:  # it is not such a list
        return value
    return re.sub(r"(\S+|' ') ([\d,]+)(?=  |$)", "\\1\N{NO-BREAK SPACE}\\2", value)


def _estimate_rows(estimate: Estimate) -> dict[str, str]:
    rows, layers = {}, estimate.resolved["layers"]
    rows[translate("Network")] = translate(
        "{layers} layer of {hidden} units, {parameters:,} parameters"
        if layers == 1
        else "{layers} layers of {hidden} units, {parameters:,} parameters",
        layers=layers,
        hidden=estimate.resolved["hidden_size"],
        parameters=estimate.parameters,
    )
    if estimate.characters_per_second and estimate.seconds:
        epochs = _rounded(estimate.epochs or 0)
        is_one = epochs == "1"
        rows[translate("Speed")] = translate(
            "about {speed:,.0f} characters/s, {epochs} pass over the text in {time}"
            if is_one
            else "about {speed:,.0f} characters/s, {epochs} passes over the text in {time}",
            speed=estimate.characters_per_second,
            epochs=epochs,
            time=duration(estimate.seconds),
        )
    rows[translate("Memory")] = translate(
        "about {memory}, and {disk} on disk",
        memory=format_bytes(estimate.memory),
        disk=format_bytes(estimate.disk),
    )
    return rows


def _rounded(value: float) -> str:
    """Two digits, or all those before the decimal point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def status(progress: JobProgress) -> str:
    """A progress bar and a table, as HTML."""
    speed = progress.characters_per_second
    rows = {
        translate("Text"): progress.job.text,
        **reading_rows(progress.job.settings),
        translate("Status"): _state_line(progress),
        translate("Time"): _times(progress),
        translate("Loss"): _losses(progress),
        translate("Speed"): translate("{speed:,.0f} characters/s", speed=speed) if speed else "",
        translate("Network"): in_words_of_the_page(progress.model),
    }
    name, done = escape(translate("Progress")), progress.done
    bar = f'<progress aria-label="{name}" max="1" value="{done:.4f}">{done:.1%}</progress>'
    table = _table({name: value for name, value in rows.items() if value})
    return bar + warning(progress.error) + table


def _state_line(progress: JobProgress) -> str:
    state = state_name(progress.job.state)
    if progress.phase == "waiting":
        return translate("{state}, position {position} in the queue", state=state, position=progress.position)
    if progress.phase == "preparing":
        return translate("{state}: reading the text", state=state)
    if progress.phase == "finishing":
        return translate("{state}: saving or evaluating", state=state)
    return state


def state_name(state: str) -> str:
    """The state of a job in words."""
    return {
        "queued": translate("queued"),
        "running": translate("running"),
        "paused": translate("paused"),
        "stopped": translate("stopped"),
        "done": translate("done"),
        "failed": translate("failed"),
        "interrupted": translate("interrupted"),
    }[state]


def _times(progress: JobProgress) -> str:
    if not progress.step:
        return ""
    spent = translate("{time}, step {step:,}", time=duration(progress.seconds), step=progress.step)
    if progress.phase == "training" and progress.remaining is not None:
        return translate("{spent}, about {left} left", spent=spent, left=duration(progress.remaining))
    return spent


def _losses(progress: JobProgress) -> str:
    parts = []
    if progress.train_loss is not None:
        parts.append(translate("training {loss:.3f}", loss=progress.train_loss))
    if progress.validation_loss is not None:
        parts.append(translate("validation {loss:.3f}", loss=progress.validation_loss))
    return ", ".join(parts)


def curve(progress: JobProgress) -> str:
    """The loss curve so far, as an HTML image."""
    if len(progress.train) < 2:
        return ""
    records: list[dict[str, Any]] = [{"step": step, "train_loss": loss} for step, _, loss in progress.train]
    records += progress.validations
    return curve_image(loss_curve(records, progress.job.title))


def _table(rows: dict[str, Any]) -> str:
    lines = (
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(lines)}</table>"


def warnings(lines: list[str]) -> str:
    """Warnings, each as a paragraph."""
    return "".join(map(warning, lines))


def samples(progress: JobProgress) -> dict[str, Any]:
    """The value of the component in static/samples.js: the samples, and the progress for the title."""
    state, done = progress.job.state, progress.done
    active = state in (QUEUED, RUNNING)
    return {
        "job": progress.job.id,
        "label": translate("Samples from the first to the latest"),
        "samples": [(translate("after step {step:,}", step=step), text) for step, text in _some(progress)],
        "active": active,
        "title": f"{f'{done:.0%}' if active else state_name(state)} · {progress.job.title}",
    }


def _some(progress: JobProgress) -> list[Sample]:
    """All samples, or as many as fit on the slider, with the first and the last."""
    found, last = progress.samples, len(progress.samples) - 1
    if last < _MAX_SAMPLES:
        return found
    return [found[round(number * last / (_MAX_SAMPLES - 1))] for number in range(_MAX_SAMPLES)]
