"""What `lm evaluate` does: score a text, print the metrics and write tables of tokens and words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lm.cli.results import (
    ScoresBySide,
    describe,
    json_record,
    rows_of_differences,
    rows_of_scores,
)
from lm.cli.warnings import warn_about_unknown_tokens
from lm.config.schema import DataConfig, RunConfig
from lm.config.settings import build
from lm.console.progress import ProgressCallback
from lm.console.terminal import Terminal
from lm.data.as_trained import TAKEN_OVER
from lm.data.columns import Rows
from lm.data.eval_text import EvalText, read_held_out, read_whole
from lm.errors import UserError
from lm.insight.items import COLUMN_COMMENTS, Items
from lm.insight.scored_text import ScoredText, compare, two_sided
from lm.insight.surprisal import score_text
from lm.insight.table_files import header_comment, table_lines, write_table
from lm.language_model import LanguageModel, load
from lm.model.device import choose_precision
from lm.storage.run_folder import Run

_MODELS = ("model", "backward", "compare")  # the options that name one
_STATED = ("split", "region_separator", "regions", "keep", "frequency")  # in the header of a table
_UNWRITTEN = 0.01  # fraction of a text that is whitespace without tokens, above which there is a warning


def evaluate(options: dict[str, Any], reading: dict[str, Any], adaptations: dict[str, Any]) -> int:
    """Carry out the given command-line options and return the exit status. Raises UserError.

    `reading` are the settings for reading --dataset. With `adaptations` (arguments of `score_text`), the text
    is scored twice: plainly, and adapting to the text.
    """
    terminal = Terminal(stderr=True)
    tables = {flag: options[flag] for flag in ("per_token", "per_word", "per_region") if flag in options}
    names = [options[name] for name in _MODELS if name in options]
    modes: dict[str, dict[str, Any]] = {"plain": {}}
    if adaptations:
        modes[" + ".join(adaptations)] = adaptations
    with terminal.progress() as progress:
        models = _load_models(names, options)
        items = Items(options)
        text = _read_text(models[0], options, reading, progress, items.rows, tables.values())
        text = text._replace(text=items.marked(text.text))
        reset = _resets(options, adaptations, items.rows)
        precision = options["precision"]
        named = dict(zip(_sides(options), models, strict=True))
        scores = {mode: _score(named, text.text, mode, precision, modes, reset, progress) for mode in modes}
        differences = {mode: compare(s["model"], s["other"]) for mode, s in scores.items() if "other" in s}
    if options.get("skip_unknown"):
        scores = {
            mode: {side: replace(scored, skip_unknown=True) for side, scored in sides.items()}
            for mode, sides in scores.items()
        }
    for warning in text.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    labeled = {_label(side, mode, modes): s for mode, sides in scores.items() for side, s in sides.items()}
    first = next(iter(scores.values()))
    for side in ("model", "other") if differences else list(first)[:1]:
        model = "other model" if side == "other" else "model"
        _warn_about_unknown(first[side], model, bool(differences))
        _warn_about_whitespace(first[side], model, bool(differences))
    if options["json"]:
        print(json.dumps(json_record(options, text.name, labeled, differences)))
    else:
        if "-" not in tables.values():
            terminal = Terminal()
        descriptions = [*map(describe, names, models)]
        for block in rows_of_scores(descriptions, text, scores, given="dataset" in options):
            terminal.table(block)
        if differences:
            terminal.table(rows_of_differences(options["model"], options["compare"], differences))
    mode, sides = list(scores.items())[-1]
    state = "each document from the zero state" if reset else "carried from document to document"
    settings = {"state": state, "precision": precision, "scores": mode, **reading}
    settings |= {name: options[name] for name in _STATED if options.get(name)}
    for flag, file in tables.items():
        comments = header_comment(
            dict(zip(names, models, strict=True)), text.name, settings, COLUMN_COMMENTS[flag]
        )
        write_table(file, table_lines(items.table(flag, sides), options.get("format"), comments))
    return 0


def _resets(options: dict[str, Any], adaptations: dict[str, Any], rows: Rows) -> bool:
    """Whether each document is read from the zero state: as chosen, otherwise if it is the row of a table.

    Held-out text is scored as in training, and models adapt to running text unless --reset is given.
    """
    if "reset" in options or "carry" in options:
        return "reset" in options
    return "dataset" in options and rows.only_tables and not adaptations


def _load_models(names: Sequence[str], options: dict[str, Any]) -> list[LanguageModel]:
    """The model and, with --backward or --compare, the other one. Raises UserError."""
    models = [load(name, options["device"]) for name in names]
    if "backward" in options:
        for name, model, backward in zip(names, models, (False, True), strict=True):
            if model.backward != backward:
                direction = "right to left" if model.backward else "left to right"
                raise UserError(
                    f"{name} reads {direction}: name a forward model first and a backward one for --backward."
                )
        if len({model.tokenizer.backend.to_str() for model in models}) > 1:
            raise UserError(
                f"{names[0]} and {names[1]} have different tokenizers, so their scores cannot be combined:"
                " train both on the same text with the same --tokenizer, or one with the other's"
                " tokenizer.json."
            )
    return models


def _read_text(
    model: LanguageModel,
    options: dict[str, Any],
    reading: dict[str, Any],
    progress: ProgressCallback,
    rows: Rows,
    outputs: Iterable[str],
) -> EvalText:
    """The text to score, by default the one that `model` has held out. Raises UserError if it cannot be read,
    or if it is one of the `outputs`."""
    split = options.get("split")
    assert model.folder  # as of every model that was loaded
    run = Run(model.folder)
    if "dataset" in options:
        training = _settings_of_training(run, reading)
        if reading.get("document_separator") == "":  # as if the training had none
            del reading["document_separator"]
        config = build(DataConfig, {"dataset": options["dataset"], **reading})
        return read_whole(config, split, progress, training, rows, outputs)
    if not run.config.is_file():
        raise UserError(f"{options['model']} does not say which text it held out: name one with --dataset.")
    if split not in (None, "validation", "test"):
        raise UserError(f"without --dataset, --split must be validation or test, got {split}.")
    config = RunConfig.from_flat(run.settings(), where=str(run.config)).data
    return read_held_out(config, split or "validation", progress, outputs, model.facts.get("trained_on"))


def _settings_of_training(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """How the text of the training was read, as the run's config.yaml says: what is not usual or `given`."""
    if not run.config.is_file():
        return {}
    saved = run.settings()
    config = build(DataConfig, {name: saved[name] for name in TAKEN_OVER if name in saved})
    settings = ((name, getattr(config, name)) for name in TAKEN_OVER if name not in given)
    return {name: value for name, value in settings if value != getattr(DataConfig(), name)}


def _sides(options: dict[str, Any]) -> list[str]:
    """The names of the scores of each model."""
    if "backward" in options:
        return ["forward", "backward"]
    return ["model", "other"] if "compare" in options else ["surprisal"]


def _score(
    models: dict[str, LanguageModel],
    text: bytes,
    mode: str,
    precision: str,
    modes: dict[str, dict[str, Any]],
    reset: bool,
    progress: ProgressCallback,
) -> ScoresBySide:
    scores: ScoresBySide = {}
    for side, model in models.items():
        only = side == "surprisal" and len(modes) == 1
        task = "Scoring" if only else f"Scoring ({_label(side, mode, modes)})"

        def show(fraction: float, task: str = task) -> None:
            progress(task, fraction)

        chosen = choose_precision(precision, model.device)
        scores[side] = score_text(model, text, reset=reset, precision=chosen, progress=show, **modes[mode])
    return scores if "backward" not in scores else {**scores, "mean": two_sided(*scores.values())}


def _label(side: str, mode: str, modes: dict[str, dict[str, Any]]) -> str:
    """'plain', 'forward', 'forward dynamic'."""
    if side == "surprisal":
        return mode
    return f"{side} {mode}" if len(modes) > 1 else side


def _warn_about_whitespace(scored: ScoredText, model: str, compared: bool) -> None:
    share = scored.unwritten / max(len(scored.text), 1)
    if share > _UNWRITTEN:
        effect = " and the comparison unfair" if compared else ""
        print(
            f"warning: {share:.1%} of the text is whitespace that the tokens of the {model} do not represent,"
            f" which makes its bits per character and byte look better than they are{effect}.",
            file=sys.stderr,
        )


def _warn_about_unknown(scored: ScoredText, model: str, compared: bool) -> None:
    effect = "Scoring them as <unk> makes the metrics look better than they are"
    effect += " and the comparison unfair." if compared else ": see --skip-unknown."
    if scored.skip_unknown:
        effect = "The metrics leave them out."
    warn_about_unknown_tokens(
        scored.tokenizer, scored.text, scored.unknown, len(scored.tokens), effect, model
    )
