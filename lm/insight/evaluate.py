"""What `lm evaluate` does: score a text, print the metrics and write tables of tokens and words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from lm.config.schema import DataConfig, RunConfig
from lm.config.settings import arguments, build
from lm.data.as_trained import TAKEN_OVER
from lm.data.columns import Rows
from lm.data.eval_text import EvalText, read_held_out, read_whole
from lm.data.progress import ProgressCallback
from lm.data.report import table_rows
from lm.errors import UserError
from lm.evaluation.metrics import Estimate, Metrics
from lm.insight.items import UNITS, Items
from lm.insight.scored_text import ScoredText, two_sided
from lm.insight.surprisal import score_text
from lm.insight.table_files import header_comment, table_lines, write_table
from lm.invocation import quoted
from lm.language_model import LanguageModel, load
from lm.model.device import choose_precision
from lm.model_folder import find_model
from lm.run_folder import Run
from lm.terminal import Terminal
from lm.tokenization.tokenizer import Tokenizer, describe_unknown
from lm.wording import plural

# The scores of one model are called "surprisal", those of two "forward", "backward" and "mean".
Scores = dict[str, ScoredText]


def evaluate(options: dict[str, Any], reading: dict[str, Any], adaptations: dict[str, Any]) -> int:
    """Carry out the given command-line options; the exit status. Raises UserError.

    `reading` are the settings for reading --dataset. With `adaptations` (arguments of `score_text`), the text
    is scored twice: plainly, and adapting to the text.
    """
    terminal = Terminal(stderr=True)
    modes: dict[str, dict[str, Any]] = {"plain": {}}
    if adaptations:
        modes[" + ".join(adaptations)] = adaptations
    with terminal.progress() as progress:
        models = _load_models(options)
        items = Items(options)
        text = _read_text(options, reading, progress, items.rows)
        text = text._replace(text=items.marked(text.text))
        reset = _resets(options, adaptations, items.rows)
        precision = options["precision"]
        scores = {mode: _score(models, text.text, mode, precision, modes, reset, progress) for mode in modes}
    if options.get("skip_unknown"):
        scores = {mode: _skipping_unknown(sides) for mode, sides in scores.items()}
    for warning in text.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    labeled = {_label(side, mode, modes): s for mode, sides in scores.items() for side, s in sides.items()}
    _warn_of_unknown(next(iter(labeled.values())))
    tables = {flag: options[flag] for flag in ("per_token", "per_word", "per_region") if flag in options}
    if options["json"]:
        print(json.dumps(_record(options["model"], text.name, labeled)))
    else:
        if "-" not in tables.values():
            terminal = Terminal()
        for block in _blocks(options, models, text, scores):
            terminal.table(block)
    for flag, file in tables.items():
        mode, sides = list(scores.items())[-1]
        state = "each document from the empty state" if reset else "carried from document to document"
        given = ("split", "region_separator", "regions", "keep", "frequency")
        settings = {"state": state, "precision": precision, "scores": mode, **reading}
        settings |= {name: options[name] for name in given if options.get(name)}
        names = [options[name] for name in ("model", "backward") if name in options]
        comments = header_comment(dict(zip(names, models, strict=True)), text.name, settings, UNITS[flag])
        table = items.table(flag, sides)
        write_table(file, table_lines(table, options.get("format"), comments))
    return 0


def _resets(options: dict[str, Any], adaptations: dict[str, Any], rows: Rows) -> bool:
    """Whether each document is read from the empty state: as chosen, otherwise if it is the row of a table.

    Held-out text is scored as in training, and adaptation needs running text.
    """
    if "reset" in options or "carry" in options:
        return "reset" in options
    return "dataset" in options and rows.only_tables and not adaptations


def _skipping_unknown(scores: Scores) -> Scores:
    """The scores with metrics of known tokens only."""
    return {side: replace(scored, skip_unknown=True) for side, scored in scores.items()}


def _load_models(options: dict[str, Any]) -> list[LanguageModel]:
    """The model and, with --backward, the backward one. Raises UserError."""
    names = [options[name] for name in ("model", "backward") if name in options]
    models = [load(name, options["device"]) for name in names]
    if len(models) == 2:
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
    options: dict[str, Any], reading: dict[str, Any], progress: ProgressCallback, rows: Rows
) -> EvalText:
    """The text to score. Raises UserError."""
    split = options.get("split")
    run = Run(find_model(options["model"]))
    if "dataset" in options:
        training = _settings_of_training(run, reading)
        if reading.get("document_separator") == "":  # as if the training had none
            del reading["document_separator"]
        config = build(DataConfig, {"dataset": options["dataset"], **reading})
        return read_whole(config, split, progress, training, rows)
    if not run.config.is_file():
        raise UserError(f"{options['model']} does not say which text it held out: name one with --dataset.")
    if split not in (None, "validation", "test"):
        raise UserError(f"without --dataset, --split must be validation or test, got {split}.")
    config = RunConfig.from_flat(run.settings(), where=str(run.config)).data
    return read_held_out(config, split or "validation", progress)


def _settings_of_training(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """How the text of the training was read, as the run's config.yaml says: what is not usual or `given`."""
    if not run.config.is_file():
        return {}
    saved = run.settings()
    config = build(DataConfig, {name: saved[name] for name in TAKEN_OVER if name in saved})
    settings = ((name, getattr(config, name)) for name in TAKEN_OVER if name not in given)
    return {name: value for name, value in settings if value != getattr(DataConfig(), name)}


def _score(
    models: list[LanguageModel],
    text: bytes,
    mode: str,
    precision: str,
    modes: dict[str, dict[str, Any]],
    reset: bool,
    progress: ProgressCallback,
) -> Scores:
    scores: Scores = {}
    sides = ["surprisal"] if len(models) == 1 else ["forward", "backward"]
    for side, model in zip(sides, models, strict=True):
        task = f"Scoring ({_label(side, mode, modes)})"

        def show(fraction: float, task: str = task) -> None:
            progress(task, fraction)

        chosen = choose_precision(precision, model.device)
        scores[side] = score_text(model, text, reset=reset, precision=chosen, progress=show, **modes[mode])
    return scores if len(models) == 1 else {**scores, "mean": two_sided(*scores.values())}


def _label(side: str, mode: str, modes: dict[str, dict[str, Any]]) -> str:
    """'plain', 'forward', 'forward dynamic'."""
    if side == "surprisal":
        return mode
    return f"{side} {mode}" if len(modes) > 1 else side


def _warn_of_unknown(scored: ScoredText) -> None:
    effect = "Scoring them as <unk> makes the metrics look better than they are: see --skip-unknown."
    if scored.skip_unknown:
        effect = "The metrics leave them out."
    warn_of_unknown(scored.tokenizer, scored.text, scored.unknown, len(scored.tokens), effect)


def warn_of_unknown(tokenizer: Tokenizer, text: bytes, unknown: int, tokens: int, effect: str) -> None:
    """Print a warning if some of the tokens of a text are `unknown`, and which `effect` that has."""
    names = describe_unknown(tokenizer, text) if unknown else ""
    if names:
        print(
            f"warning: the model does not know {unknown:,} of the {plural(tokens, 'token')} ({names}),"
            f" {unknown / tokens:.1%}. {effect}",
            file=sys.stderr,
        )


def _record(model: str, name: str, labeled: Scores) -> dict[str, Any]:
    """The results as a JSON object."""
    scored = next(iter(labeled.values()))
    metrics = {label: asdict(each.metrics) for label, each in labeled.items()}
    return {
        "model": model,
        "text": name,
        **scored.size,
        "unknown": scored.unknown,
        "reset": scored.bounds is not None,
        "scores": metrics,
    }


def _blocks(
    options: dict[str, Any], models: list[LanguageModel], text: EvalText, scores: dict[str, Scores]
) -> Iterator[dict[str, str]]:
    """The results as rows to print: a block per side, with a column per mode."""
    for number, side in enumerate(scores["plain"]):
        sides = [scored[side] for scored in scores.values()]
        if side == "mean":
            rows = {"Mean": "of both models at each token; not a probability of the text"}
        else:
            title = "Model" if side == "surprisal" else side.capitalize()
            rows = {title: describe(options["backward" if number else "model"], models[number])}
        if number == 0:
            sizes = (plural(count, unit.removesuffix("s")) for unit, count in sides[0].size.items())
            rows["Text"] = f"{text.name}: {', '.join(sizes)}"
            if "dataset" in options:  # of the text held out, training has printed these
                rows |= table_rows(text.tables)
                rows["As in training"] = " ".join(map(quoted, arguments(text.as_trained)))
            if sides[0].bounds is not None:
                rows["State"] = "empty at the beginning of each document (--carry reads on)"
        columns = [_column(mode, scored.metrics) for mode, scored in zip(scores, sides, strict=True)]
        if len(columns) == 1:
            del columns[0][""]
        for title in columns[0]:
            rows[title] = "  ".join(column[title] for column in columns).rstrip()
        yield rows


def describe(name: str, model: LanguageModel) -> str:
    """'runs/hamlet: char, LSTM, 2 layers of 256 units'."""
    config = model.network.config
    layers = f"{plural(config.layers, 'layer')} of {config.hidden_size} units"
    direction = ", right to left" if config.backward else ""
    return f"{name}: {model.tokenizer.kind}, {config.cell.upper()}, {layers}{direction}"


def _column(mode: str, metrics: Metrics) -> dict[str, str]:
    """The metrics of one mode, all cells of the same width."""
    cells = {
        "": mode,
        "Nats per token": with_interval(metrics.loss, 4),
        "Perplexity": with_interval(metrics.perplexity, 2),
        "Bits per character": with_interval(metrics.bits_per_character, 4),
        "Bits per byte": with_interval(metrics.bits_per_byte, 4),
    }
    width = max(map(len, cells.values()))
    return {title: cell.ljust(width) for title, cell in cells.items()}


def with_interval(estimate: Estimate, digits: int) -> str:
    """'1.5501 (1.5382 to 1.5620)'."""
    interval = estimate.interval and " to ".join(f"{end:.{digits}f}" for end in estimate.interval)
    return f"{estimate.value:.{digits}f}" + (f" ({interval})" if interval else "")
