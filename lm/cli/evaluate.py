"""Score a text with a trained model.

lm evaluate runs/hamlet                       the text held out from training
lm evaluate runs/hamlet --dataset new.txt     another text
lm evaluate runs/hamlet --dynamic --cache     adapt to the text while reading it
lm evaluate runs/hamlet --compare runs/other  how much two models differ
lm evaluate runs/hamlet --per-word words.tsv  the surprisal of each word
lm evaluate runs/hamlet --dataset items.csv --keep id --per-word words.tsv
lm evaluate runs/hamlet --pairs pairs.csv     accuracy on minimal pairs

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.cli.parser import MODEL, add_device, add_settings, check_requirements, make_parser
from lm.config.schema import CacheConfig, DataConfig, DynamicConfig, EvaluationConfig
from lm.config.settings import build, check_not_empty, flag_of, settings_of
from lm.console.invocation import quoted
from lm.errors import UserError
from lm.files.atomic import check_output
from lm.files.paths import expanded

READING = (
    *("dataset_config", "dataset_revision", "text_column", "max_chars"),
    *("json_field", "header", "encoding", "encoding_errors", "document_separator"),
)
TABLES = ("per_token", "per_word", "per_region")
PAIR_TABLES = ("per_pair", "per_phenomenon")
PAIRS = ("good", "bad", "phenomenon", "target_delimiter", *PAIR_TABLES)  # flags of --pairs only
WITH_PAIRS = {  # all flags that --pairs can be combined with
    *("model", "pairs", "device", "precision", "json", "format", "keep", *PAIRS),
    *("dataset_config", "dataset_revision", "json_field", "header", "encoding", "encoding_errors"),
}
FORMATS = ("tsv", "csv", "jsonl", "lm-zoo")
ADAPTATIONS: dict[str, type] = {"dynamic": DynamicConfig, "cache": CacheConfig}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of the command that were given. Exits with status 2 if they are invalid."""
    parser = make_parser("evaluate", __doc__ or "")
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL)
    add("--backward", metavar="MODEL", help="a backward model, for scores from both sides")
    add(
        "--compare",
        metavar="MODEL",
        help="compare with another model: difference, interval, permutation test",
    )
    for name in TABLES:
        add(flag_of(name), metavar="FILE", help=table_of(name))
    add("--format", choices=FORMATS, help="format of the tables; default: tsv without a header comment")
    add("--keep", action="append", metavar="COLUMNS", help="copy these columns of the table; repeatable")
    add_state = parser.add_mutually_exclusive_group().add_argument
    reset = "read each document from the zero state (default for tables)"
    add_state("--reset", action="store_true", help=reset)
    add_state(
        "--carry",
        action="store_true",
        help="keep the state between documents (default for text files)",
    )
    add("--regions", metavar="COLUMN", help="the column with the regions of each text, a list or marked text")
    add("--region-separator", metavar="C", help="the character between regions; default with --regions: '|'")
    add("--skip-unknown", action="store_true", default=False, help="leave <unk> tokens out of the metrics")
    add("--frequency", metavar="LANG", help="add length and frequency to --per-word: en, de, … (wordfreq)")
    add("--json", action="store_true", default=False, help="print the results as a JSON object")
    add_device(parser, ("auto", "fp32", "tf32", "bf16"), "matrix products")
    add("--dynamic", action="store_true", default=False, help="keep updating the weights while reading")
    add("--cache", action="store_true", default=False, help="mix in predictions from recent text")
    add_pairs(parser)
    add_settings(parser, EvaluationConfig, "the text")
    add_settings(parser, DataConfig, "reading the text (--dataset)", READING)
    add_settings(parser, DynamicConfig, "dynamic evaluation (--dynamic)")
    add_settings(parser, CacheConfig, "the continuous cache (--cache)")
    return parser.parse_args(arguments)


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add the flags of minimal pairs."""
    add = parser.add_argument_group("minimal pairs (--pairs)").add_argument
    files = "tables of minimal pairs: files, globs, folders, archives or Hub ids"
    add("--pairs", nargs="+", action="extend", metavar="FILE", help=files)
    add("--good", metavar="COLUMN", help="the acceptable sentences (default: sentence_good)")
    add("--bad", metavar="COLUMN", help="the unacceptable sentences (default: sentence_bad)")
    add("--phenomenon", metavar="COLUMN", help="what a pair tests (default: UID, else the file's name)")
    add("--target-delimiter", metavar="TEXT", help="text before each sentence (default: ' ', as in lm-eval)")
    for name in PAIR_TABLES:
        add(flag_of(name), metavar="FILE", help=table_of(name))


def table_of(name: str) -> str:
    """The help of a flag such as `per_word`."""
    return f"write a table with one row per {name.removeprefix('per_')}; '-': standard output"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Raises UserError."""
    options = vars(parse(arguments))
    check_not_empty({name: value for name, value in options.items() if name != "model"})
    if "pairs" in options:
        check_pairs(options)
    adaptations = chosen_adaptations(options)
    check_outputs(options)
    reading = {name: options[name] for name in READING if name in options}
    check_items(options)
    options["keep"] = kept_columns(options.get("keep", []))
    if "pairs" in options:
        from lm.cli.pairs import evaluate_pairs

        return evaluate_pairs(options, reading)
    if reading and "dataset" not in options:
        raise UserError(f"{flag_of(next(iter(reading)))} requires --dataset.")
    if "compare" in options:
        check_comparison(options)
    from lm.cli.run_evaluate import evaluate  # imports torch, for which --help should not wait

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


def check_items(options: dict[str, Any]) -> None:
    """Raise UserError for flags of items that have no effect or cannot be combined."""
    requirements = (
        *((name, ("pairs",)) for name in PAIRS),
        *((name, ("dataset",)) for name in ("regions", "reset")),
        ("keep", ("dataset", "pairs")),
        ("keep", ("per_pair",) if "pairs" in options else TABLES),
        ("format", PAIR_TABLES if "pairs" in options else TABLES),
        ("per_region", ("regions", "region_separator")),
        ("frequency", ("per_word",)),
    )
    check_requirements(options, requirements)
    if len(mark := options.get("regions", "")) == 1 and not mark.isalnum():
        separator = f"--region-separator {quoted(mark)}"
        raise UserError(f"--regions names a column: to split texts at {mark!r}, use {separator}.")
    if options.get("format") == "lm-zoo" and (extra := [n for n in ("keep", "frequency") if n in options]):
        raise UserError(f"the columns of --format lm-zoo are fixed: leave out {flag_of(extra[0])}.")


def kept_columns(flags: Sequence[str]) -> tuple[str, ...]:
    """The columns that --keep names. Raises UserError if one has no name."""
    try:
        columns = [name.strip() for names in csv.reader(flags, skipinitialspace=True) for name in names]
    except csv.Error as error:
        raise UserError("--keep: put names with a comma or a line break in quotation marks.") from error
    if "" in columns:
        raise UserError("--keep must name columns, separated by commas.")
    return tuple(dict.fromkeys(columns))


def check_pairs(options: dict[str, Any]) -> None:
    """Raise UserError for flags that --pairs cannot be combined with."""
    for name, value in options.items():
        if name not in WITH_PAIRS and value is not False:
            raise UserError(f"{flag_of(name)} cannot be combined with --pairs.")
    if options.get("format") == "lm-zoo":
        raise UserError("--format lm-zoo is for tables of tokens: choose tsv, csv or jsonl.")


def check_comparison(options: dict[str, Any]) -> None:
    """Raise UserError for flags that do not go with --compare."""
    for name in ("backward", *TABLES):
        if name in options:
            raise UserError(f"--compare compares the whole text under two models: leave out {flag_of(name)}.")
    if options["skip_unknown"]:
        raise UserError("--compare needs the bits of the same characters: leave out --skip-unknown.")


def check_outputs(options: dict[str, Any]) -> None:
    """Raise UserError before any work is done if a table cannot be written."""
    outputs = {flag_of(name): options[name] for name in (*TABLES, *PAIR_TABLES) if name in options}
    flags: dict[str | Path, list[str]] = defaultdict(list)  # by what they write to
    for flag, file in outputs.items():
        flags[file if file == "-" else expanded(file).resolve()].append(flag)
    if same := next((names for names in flags.values() if len(names) > 1), None):
        raise UserError(f"{' and '.join(same)} name the same file: choose different files.")
    if "-" in flags and options["json"]:
        raise UserError("the table and --json would both go to standard output: choose a file for the table.")
    for file in outputs.values():
        if file != "-":
            check_output(file)
