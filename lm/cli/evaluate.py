"""Score a text with a trained model.

    lm evaluate runs/hamlet                           the text held out from training
    lm evaluate runs/hamlet --dataset new.txt         another text
    lm evaluate runs/hamlet --dynamic --cache         adapt to the text while reading it
    lm evaluate runs/hamlet --per-word words.tsv      the surprisal of each word

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from lm.cli.parser import add_device, add_settings, check_output, make_parser
from lm.config.schema import CacheConfig, DataConfig, DynamicConfig, EvaluationConfig
from lm.config.settings import build, flag_of, settings_of
from lm.errors import UserError

READING = (
    *("dataset_config", "dataset_revision", "text_column", "max_chars"),
    *("json_field", "header", "encoding", "encoding_errors", "document_separator"),
)
ADAPTATIONS: dict[str, type] = {"dynamic": DynamicConfig, "cache": CacheConfig}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("evaluate", __doc__ or "")
    add = parser.add_argument
    add(
        "model", metavar="MODEL", help="a run, a saved folder or a Hub id (owner/name or owner/name@revision)"
    )
    add("--backward", metavar="MODEL", help="a backward model, for scores from both sides")
    add("--per-token", metavar="FILE", help="write a table with one row per token; '-': standard output")
    add("--per-word", metavar="FILE", help="write a table with one row per word; '-': standard output")
    add("--json", action="store_true", default=False, help="print the results as a JSON object")
    add_device(parser, ("auto", "fp32", "tf32", "bf16"), "matrix products")
    add("--dynamic", action="store_true", default=False, help="keep updating the weights while reading")
    add("--cache", action="store_true", default=False, help="mix in predictions from recent text")
    add_settings(parser, EvaluationConfig, "the text")
    add_settings(parser, DataConfig, "reading the text (--dataset)", READING)
    add_settings(parser, DynamicConfig, "dynamic evaluation (--dynamic)")
    add_settings(parser, CacheConfig, "the continuous cache (--cache)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; the exit status. Raises UserError."""
    options = vars(parse(arguments))
    for name in ("dataset", "split", "backward", "per_token", "per_word"):
        if options.get(name) in ("", [""]):
            raise UserError(f"{flag_of(name)} must not be empty.")
    adaptations = chosen_adaptations(options)
    check_outputs(options)
    reading = {name: options[name] for name in READING if name in options}
    if reading and "dataset" not in options:
        raise UserError(f"{flag_of(next(iter(reading)))} requires --dataset.")
    from lm.insight.evaluate import evaluate  # imports torch, for which --help should not wait

    return evaluate(options, reading, adaptations)


def chosen_adaptations(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of --dynamic and --cache by name, where chosen. Raises UserError."""
    chosen: dict[str, Any] = {}
    for name, config_class in ADAPTATIONS.items():
        given = {setting: options[setting] for setting in settings_of(config_class) if setting in options}
        if given and not options[name]:
            raise UserError(f"{flag_of(next(iter(given)))} requires --{name}.")
        if options[name]:
            chosen[name] = build(config_class, given)
    return chosen


def check_outputs(options: dict[str, Any]) -> None:
    """Raise UserError before any work is done if a table cannot be written."""
    files = [options[name] for name in ("per_token", "per_word") if name in options]
    if len(files) > len(set(files)):
        raise UserError("--per-token and --per-word name the same file: choose two files.")
    if "-" in files and options["json"]:
        raise UserError("the table and --json would both go to standard output: choose a file for the table.")
    for file in files:
        if file != "-":
            check_output(file)
