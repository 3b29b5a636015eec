"""What `lm evaluate --pairs` does: score minimal pairs, print the accuracy and write tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lm.cli.results import describe
from lm.cli.warnings import warn_about_unknown_tokens
from lm.config.schema import DataConfig
from lm.config.settings import build
from lm.console.terminal import Terminal
from lm.console.wording import plural
from lm.data.pairs import PairColumns, read_pairs
from lm.insight.pairs import DELIMITER, Accuracy, ScoredPairs, pair_table, score_pairs
from lm.insight.scored_text import Table, Values, escaped_text
from lm.insight.table_files import header_comment, table_lines, write_table
from lm.language_model import LanguageModel, load
from lm.tokenization.documents import SEPARATOR

_UNITS = {  # what the columns of a table contain, for its header comment
    "per_pair": "surprisal: bits of the whole sentence, the delimiter before it included;"
    " correct: the good sentence is more probable; tie: both are equally probable.",
    "per_phenomenon": "accuracy: share of correct pairs and ties; low, high: its 95% Wilson interval.",
}


def evaluate_pairs(options: dict[str, Any], reading: Mapping[str, Any]) -> int:
    """Carry out the options of `lm evaluate --pairs` and return the exit status. Raises UserError.

    `reading` are the settings for reading the tables.
    """
    delimiter = options.get("target_delimiter", DELIMITER)
    names = {name: options[name] for name in PairColumns._fields if options.get(name)}
    tables = {flag: options[flag] for flag in ("per_pair", "per_phenomenon") if flag in options}
    with Terminal(stderr=True).progress() as progress:
        model = load(options["model"], options["device"])
        config = build(DataConfig, {"dataset": options["pairs"], **reading})
        pairs = read_pairs(config, PairColumns(**names), progress, tables.values())
        scored = score_pairs(
            model,
            pairs.good,
            pairs.bad,
            delimiter=delimiter,
            precision=options["precision"],
            progress=lambda fraction: progress("Scoring", fraction),
        )
    phenomena = _by_phenomenon(scored, pairs.phenomena)
    overall = scored.accuracy()
    for warning in pairs.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _warn(model, scored, overall)
    if options["json"]:
        results = {
            "model": options["model"],
            "text": pairs.name,
            "target_delimiter": delimiter,
            **overall.record,
            "mean_of_phenomena": _mean(phenomena),
            "pairs_with_unknown": int(np.count_nonzero(scored.unknown.any(axis=0))),
            "phenomena": {name: each.record for name, each in phenomena.items()},
        }
        print(json.dumps(results))
    else:
        terminal = Terminal(stderr="-" in tables.values())
        size = f"{plural(overall.pairs, 'pair')}, sentences after {delimiter!r}"
        terminal.table({"Model": describe(options["model"], model), "Pairs": f"{pairs.name}: {size}"})
        terminal.table(_rows(overall, phenomena))
    settings = {"delimiter": repr(delimiter), "precision": options["precision"], **names, **reading}
    for flag, file in tables.items():
        table = pair_table(pairs, scored) if flag == "per_pair" else _phenomenon_table(phenomena)
        comments = header_comment({options["model"]: model}, pairs.name, settings, _UNITS[flag])
        write_table(file, table_lines(table, options.get("format"), comments))
    return 0


def _by_phenomenon(scored: ScoredPairs, phenomena: Iterable[str]) -> dict[str, Accuracy]:
    """The accuracy on each phenomenon, in the order in which they first appear."""
    numbers: dict[str, int] = {}
    of_pair = np.array([numbers.setdefault(name, len(numbers)) for name in phenomena])
    return {name: scored.accuracy(of_pair == number) for name, number in numbers.items()}


def _mean(phenomena: Mapping[str, Accuracy]) -> float:
    return sum(each.estimate.value for each in phenomena.values()) / len(phenomena)


def _warn(model: LanguageModel, scored: ScoredPairs, overall: Accuracy) -> None:
    """Warn about ties and unknown tokens."""
    if overall.ties:
        print(
            f"warning: in {overall.ties:,} of {plural(overall.pairs, 'pair')}, both sentences are equally"
            " probable. These ties count as correct, as in lm-eval; as errors, they would make the accuracy"
            f" {overall.correct / overall.pairs:.4f}.",
            file=sys.stderr,
        )
    warn_about_unknown_tokens(
        model.tokenizer,
        SEPARATOR.join(each.text for each in (*scored.good, *scored.bad)),
        int(scored.unknown.sum()),
        sum(len(text.tokens) for text in (*scored.good, *scored.bad)),
        "They are scored as <unk>: two sentences that differ only in them are a tie.",
    )


def _rows(overall: Accuracy, phenomena: Mapping[str, Accuracy]) -> list[tuple[str, str]]:
    """The results as rows to print. A phenomenon may have the name of another row."""
    width = max(len("pairs"), len(f"{overall.pairs:,}"))
    rows = [("Phenomenon", f"{'accuracy (95% interval)':25}  {'pairs':>{width}}  {'ties':>{width}}")]
    named = ((escaped_text(name), each) for name, each in phenomena.items())
    for name, each in (*named, ("All pairs", overall)):
        accuracy = f"{each.estimate:.4f}"
        rows.append((name, f"{accuracy:25}  {each.pairs:{width},}  {each.ties:{width},}"))
    if len(phenomena) > 1:
        rows.append(("Mean of phenomena", f"{_mean(phenomena):.4f}"))
    return rows


def _phenomenon_table(phenomena: Mapping[str, Accuracy]) -> Table:
    """One row per phenomenon: its number of pairs, those that are correct, and ties; the accuracy, in which
    ties are correct, and the ends of its interval."""
    each = list(phenomena.values())
    intervals = np.array([one.estimate.interval for one in each])
    return {
        "phenomenon": Values(phenomena),
        "pairs": np.array([one.pairs for one in each]),
        "correct": np.array([one.correct for one in each]),
        "ties": np.array([one.ties for one in each]),
        "accuracy": np.array([one.estimate.value for one in each]),
        "low": intervals[:, 0],
        "high": intervals[:, 1],
    }
