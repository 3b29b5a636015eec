"""Score a text with a trained model.

    lm evaluate runs/hamlet                           the text that its training held out
    lm evaluate runs/hamlet --dataset new.txt         all of another text
    lm evaluate runs/hamlet --dynamic --cache         learning from it while reading
    lm evaluate runs/hamlet --per-word words.tsv      the surprisal of each word

The figures go to standard output, all else to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.cli.parser import add_settings, make_parser
from lm.config.schema import CacheConfig, DataConfig, DynamicConfig, EvaluationConfig, RunConfig
from lm.config.settings import build, flag_of, settings_of
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.data.progress import ProgressCallback
    from lm.evaluation.metrics import Estimate, Figures
    from lm.insight.surprisal import ScoredText, Table
    from lm.language_model import LanguageModel

READING = ("dataset_config", "dataset_revision", "text_column", "max_chars", "encoding_errors")
ADAPTIVE = {"dynamic": DynamicConfig, "cache": CacheConfig}
_MOST_NAMED = 8  # unknown characters


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("evaluate", __doc__ or "")
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run, a saved folder or a Hub id")
    add("--backward", metavar="MODEL", help="one that reads right to left, for scores from both sides")
    add("--per-token", metavar="FILE", help="write a table of all tokens; '-': to standard output")
    add("--per-word", metavar="FILE", help="write a table of all words; '-': to standard output")
    add("--json", action="store_true", default=False, help="the figures as one object of JSON")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="of the products")
    add("--dynamic", action="store_true", default=False, help="let the weights learn while reading")
    add("--cache", action="store_true", default=False, help="let the model remember what it has read")
    add_settings(parser, EvaluationConfig, "the text")
    add_settings(parser, DataConfig, "how it is read", READING)
    add_settings(parser, DynamicConfig, "dynamic evaluation (--dynamic)")
    add_settings(parser, CacheConfig, "the neural cache (--cache)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = vars(parse(arguments))
    adaptive = adaptive_settings(options)
    check_outputs(options)

    from lm.terminal import Terminal

    display = Terminal(stderr=True)
    ways = {"plain": {}, **({" + ".join(adaptive): adaptive} if adaptive else {})}
    with display.progress() as progress:
        models = load_models(options)
        name, text = read_text(options, progress)
        scores = {way: score(models, text, options["precision"], ways, way, progress) for way in ways}
    shown = {
        label(side, way, ways): scored for way, sides in scores.items() for side, scored in sides.items()
    }
    warn_of_unknown(next(iter(shown.values())))
    if options["json"]:
        print(json.dumps(record(options["model"], name, shown)))
    else:
        if "-" not in (options.get("per_token"), options.get("per_word")):
            display = Terminal()
        for lines in blocks(options, models, name, scores):
            display.table(lines)

    from lm.insight.surprisal import token_table, word_table

    for flag, table in (("per_token", token_table), ("per_word", word_table)):
        if flag in options:
            write_table(options[flag], table(list(scores.values())[-1]))
    return 0


def adaptive_settings(options: dict[str, Any]) -> dict[str, Any]:
    """What --dynamic and --cache ask for, as the arguments of `score_text`. Raises UserError."""
    chosen = {}
    for name, config_class in ADAPTIVE.items():
        given = {n: options[n] for n in settings_of(config_class) if n in options}
        if given and not options[name]:
            raise UserError(f"{flag_of(next(iter(given)))} is a setting of --{name}: name that, too.")
        if options[name]:
            chosen[name] = build(config_class, given)
    return chosen


def check_outputs(options: dict[str, Any]) -> None:
    """Raise UserError, before any work is done, if a table cannot be written."""
    files = [options[name] for name in ("per_token", "per_word") if name in options]
    if len(files) > len(set(files)):
        raise UserError("--per-token and --per-word would go to one place: name another for one of them.")
    if "-" in files and options["json"]:
        raise UserError("the table and --json would both go to standard output: name a file for the table.")
    for file in filter(lambda file: file != "-", files):
        path = Path(file).expanduser()
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"{file} cannot be written: name a file in a folder that is there.")


def load_models(options: dict[str, Any]) -> list[LanguageModel]:
    """The model, and the one that reads the other way if there is one. Raises UserError."""
    from lm.saving import load

    names = [options[name] for name in ("model", "backward") if name in options]
    models = [load(name, options["device"]) for name in names]
    if len(models) == 2:
        for name, model, backward in zip(names, models, (False, True), strict=True):
            if model.backward != backward:
                how = "right to left" if model.backward else "left to right"
                raise UserError(f"{name} reads {how}: name a forward model and --backward a backward one.")
        if len({model.tokenizer.backend.to_str() for model in models}) > 1:
            raise UserError(
                f"{names[0]} and {names[1]} have different tokenizers, so their scores cannot be joined:"
                " train both on the same text with the same --tokenizer, or one with the tokenizer.json"
                " of the other."
            )
    return models


def read_text(options: dict[str, Any], progress: ProgressCallback) -> tuple[str, bytes]:
    """The name and the text to score: UTF-8 with SEPARATOR between documents. Raises UserError."""
    from lm.data.eval_text import read_held_out, read_whole
    from lm.run_folder import Run, read_config
    from lm.saving import find_model

    split = options.get("split")
    given = {name: options[name] for name in READING if name in options}
    if "dataset" in options:
        config = build(DataConfig, {"dataset": options["dataset"], **given})
        return read_whole(config, split, progress)
    if given:
        raise UserError(f"{flag_of(next(iter(given)))} goes with --dataset.")
    file = Run(find_model(options["model"])).config
    if not file.is_file():
        raise UserError(f"{options['model']} does not tell what text it held out: name one with --dataset.")
    if split not in (None, "validation", "test"):
        raise UserError(f"without --dataset, --split is validation or test, not {split}.")
    config = RunConfig.from_flat(read_config(file), where=str(file)).data
    return read_held_out(config, split or "validation", progress)


def score(
    models: list[LanguageModel],
    text: bytes,
    precision: str,
    ways: dict[str, dict[str, Any]],
    way: str,
    progress: ProgressCallback,
) -> dict[str, ScoredText]:
    """The scores by the names of their columns: surprisal, or forward, backward and their mean."""
    from lm.insight.surprisal import score_text, two_sided
    from lm.model.device import choose_precision

    scores = {}
    for side, model in zip(
        ["surprisal"] if len(models) == 1 else ["forward", "backward"], models, strict=True
    ):
        what = f"Scoring ({label(side, way, ways)})"
        scores[side] = score_text(
            model,
            text,
            precision=choose_precision(precision, model.device),
            progress=lambda fraction, what=what: progress(what, fraction),
            **ways[way],
        )
    return scores if len(models) == 1 else {**scores, "mean": two_sided(*scores.values())}


def label(side: str, way: str, ways: dict[str, Any]) -> str:
    """What a column of figures is called: 'plain', 'forward', 'forward dynamic'."""
    if side == "surprisal":
        return way
    return f"{side} {way}" if len(ways) > 1 else side


def warn_of_unknown(scored: ScoredText) -> None:
    """A line on standard error if the vocabulary lacks some of the text."""
    from lm.tokenization.documents import SEPARATOR

    apart = b"\n" if scored.tokenizer.kind == "word" else b""
    missing = scored.tokenizer.unknown_in(scored.text.replace(SEPARATOR, apart).decode())
    if not missing:  # there may be an <unk> that stands in the text itself
        return
    names = ", ".join(map(repr, missing[:_MOST_NAMED])) + (" …" if len(missing) > _MOST_NAMED else "")
    print(
        f"warning: {scored.unknown:,} of the {len(scored.tokens):,} tokens are unknown to the model and"
        f" scored as <unk>, so that the figures are too good ({names}).",
        file=sys.stderr,
    )


def record(model: str, name: str, shown: dict[str, ScoredText]) -> dict[str, Any]:
    """The figures as they are written in JSON."""
    scored = next(iter(shown.values()))
    sizes = {**sizes_of(scored), "unknown": scored.unknown}
    figures = {label: asdict(scored.figures) for label, scored in shown.items()}
    return {"model": model, "text": name, **sizes, "scores": figures}


def blocks(
    options: dict[str, Any], models: list[LanguageModel], name: str, scores: dict[str, dict[str, ScoredText]]
) -> Iterator[dict[str, str]]:
    """The figures as lines for a person: a block for each side, in it a column for each way."""
    from lm.terminal import plural

    for number, side in enumerate(scores["plain"]):
        sides = [scored[side] for scored in scores.values()]
        if side == "mean":
            lines = {"Mean": "of the two at each token; no probability of the text"}
        else:
            title = "Model" if side == "surprisal" else side.capitalize()
            lines = {title: description(options["backward" if number else "model"], models[number])}
        if number == 0:
            lines["Text"] = f"{name}: " + ", ".join(
                plural(count, unit.removesuffix("s")) for unit, count in sizes_of(sides[0]).items()
            )
        columns = [column_of(scored.figures, way) for way, scored in zip(scores, sides, strict=True)]
        if len(columns) == 1:
            del columns[0][""]
        for unit in columns[0]:
            lines[unit] = "  ".join(column[unit] for column in columns).rstrip()
        yield lines


def description(name: str, model: LanguageModel) -> str:
    """'runs/hamlet: char, LSTM, 2 layers of 256 units'."""
    from lm.terminal import plural

    config = model.network.config
    layers = f"{plural(config.layers, 'layer')} of {config.hidden_size} units"
    direction = ", right to left" if config.backward else ""
    return f"{name}: {model.tokenizer.kind}, {config.cell.upper()}, {layers}{direction}"


def column_of(figures: Figures, way: str) -> dict[str, str]:
    """One column of the figures, its cells of one width."""
    cells = {
        "": way,
        "Nats per token": with_interval(figures.loss, 4),
        "Perplexity": with_interval(figures.perplexity, 2),
        "Bits per character": with_interval(figures.bits_per_character, 4),
        "Bits per byte": with_interval(figures.bits_per_byte, 4),
    }
    width = max(map(len, cells.values()))
    return {name: cell.ljust(width) for name, cell in cells.items()}


def with_interval(estimate: Estimate, digits: int) -> str:
    """'1.5501 (1.5382 to 1.5620)'."""
    low_to_high = estimate.interval and " to ".join(f"{end:.{digits}f}" for end in estimate.interval)
    return f"{estimate.value:.{digits}f}" + (f" ({low_to_high})" if low_to_high else "")


def sizes_of(scored: ScoredText) -> dict[str, int]:
    """How large the text is."""
    from lm.data.text import count_characters
    from lm.tokenization.documents import SEPARATOR

    documents = scored.text.count(SEPARATOR)
    return {
        "tokens": len(scored.tokens),
        "characters": count_characters(scored.text),
        "bytes": len(scored.text) - documents,
        "documents": documents + 1,
    }


def write_table(file: str, table: Table) -> None:
    """Write a table into a file, which is there as a whole or not at all. Raises UserError."""
    from lm.files import replacing
    from lm.insight.surprisal import table_lines

    if file == "-":
        sys.stdout.writelines(table_lines(table))
        return
    path = Path(file).expanduser()
    try:
        if path.exists() and not path.is_file():  # a pipe or a device: nothing may take its place
            with open(path, "w", encoding="utf-8", newline="") as opened:
                opened.writelines(table_lines(table))
            return
        with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as opened:
            opened.writelines(table_lines(table))
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from error
