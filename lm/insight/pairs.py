"""Minimal pairs: how often a model finds the acceptable sentence more probable than the unacceptable one.

>>> import lm
>>> from lm.insight.pairs import score_pairs
>>> scored = score_pairs(lm.load("pretrained"), ["The boats sink."], ["The boats sinks."])
>>> scored.accuracy().estimate.value
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lm.config.schema import DataConfig
from lm.config.settings import build
from lm.console.terminal import Terminal
from lm.console.wording import plural
from lm.data.pairs import PairColumns, Pairs, read_pairs
from lm.errors import UserError
from lm.evaluation.metrics import Estimate, proportion
from lm.insight.results import describe, warn_of_unknown, with_interval
from lm.insight.scored_text import ScoredText, Table
from lm.insight.surprisal import score_texts
from lm.insight.table_files import Values, header_comment, table_lines, write_table
from lm.language_model import LanguageModel, load

DELIMITER = " "  # before each sentence: lm-eval's default `target_delimiter`
_UNITS = {  # what the columns of a table contain, for its header comment
    "per_pair": "surprisal: bits of the whole sentence, the delimiter before it included;"
    " correct: the good sentence is more probable; tie: both are equally probable.",
    "per_phenomenon": "accuracy: share of correct pairs and ties; low, high: its 95% Wilson interval.",
}


@dataclass(frozen=True)
class Accuracy:
    """How many pairs a model got right."""

    pairs: int
    correct: int  # pairs whose good sentence is more probable
    ties: int  # pairs of equally probable sentences

    @property
    def estimate(self) -> Estimate:
        """The share of pairs that are correct or ties, and its 95% interval, see `proportion`.

        Ties count as correct, as in lm-eval.
        """
        return proportion(self.correct + self.ties, self.pairs)

    @property
    def record(self) -> dict[str, Any]:
        """All of this as JSON values."""
        return {**asdict(self), "accuracy": asdict(self.estimate)}


@dataclass(frozen=True)
class ScoredPairs:
    """The sentences of minimal pairs with their scores."""

    good: list[ScoredText]  # (pairs,)
    bad: list[ScoredText]  # (pairs,)

    @cached_property
    def bits(self) -> np.ndarray:
        """The surprisal (2, pairs) of the good and of the bad sentences in bits."""
        return np.array([[scored.bits.sum() for scored in side] for side in (self.good, self.bad)])

    @cached_property
    def unknown(self) -> np.ndarray:
        """The number (2, pairs) of unknown tokens in the good and in the bad sentences."""
        return np.array([[scored.unknown for scored in side] for side in (self.good, self.bad)])

    @cached_property
    def ties(self) -> np.ndarray:
        """Whether the two sentences (pairs,) are equally probable, as those with the same tokens are."""
        same = [np.array_equal(a.tokens, b.tokens) for a, b in zip(self.good, self.bad, strict=True)]
        return np.array(same, bool) | (self.bits[0] == self.bits[1])

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the good sentence (pairs,) is more probable than the bad one."""
        return (self.bits[0] < self.bits[1]) & ~self.ties

    def accuracy(self, chosen: np.ndarray | None = None) -> Accuracy:
        """The accuracy on all pairs, or on those `chosen` (pairs,) bool."""
        chosen = np.ones(len(self.good), bool) if chosen is None else chosen
        counts = (chosen, self.correct & chosen, self.ties & chosen)
        return Accuracy(*(int(np.count_nonzero(each)) for each in counts))


def score_pairs(
    model: LanguageModel,
    good: Sequence[str],
    bad: Sequence[str],
    *,
    delimiter: str = DELIMITER,
    precision: str = "fp32",
    progress: Callable[[float], None] = lambda fraction: None,
) -> ScoredPairs:
    """Score the sentences of minimal pairs with `score_texts`, each by itself and after the `delimiter`.

    The tokens of the delimiter are scored too, as lm-eval does. Raises UserError for an ensemble, and if
    there are not as many `bad` sentences as `good` ones.
    """
    if len(good) != len(bad):
        raise UserError(f"each good sentence needs a bad one, got {len(good):,} and {len(bad):,} sentences.")
    texts = [delimiter + sentence for sentence in (*good, *bad)]
    scored = score_texts(model, texts, precision=precision, progress=progress)
    return ScoredPairs(scored[: len(good)], scored[len(good) :])


def evaluate_pairs(options: dict[str, Any], reading: Mapping[str, Any]) -> int:
    """Carry out the options of `lm evaluate --pairs`; the exit status. Raises UserError.

    `reading` are the settings for reading the tables.
    """
    delimiter = options.get("target_delimiter", DELIMITER)
    names = {name: options[name] for name in PairColumns._fields if options.get(name)}
    with Terminal(stderr=True).progress() as progress:
        model = load(options["model"], options["device"])
        config = build(DataConfig, {"dataset": options["pairs"], **reading})
        pairs = read_pairs(config, PairColumns(**names), progress)
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
    _warn(model, pairs, scored, overall)
    tables = {flag: options[flag] for flag in ("per_pair", "per_phenomenon") if flag in options}
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
    elif "-" not in tables.values():
        terminal = Terminal()
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


def _warn(model: LanguageModel, pairs: Pairs, scored: ScoredPairs, overall: Accuracy) -> None:
    """Warn of ties and of unknown tokens."""
    if overall.ties:
        print(
            f"warning: in {overall.ties:,} of {plural(overall.pairs, 'pair')}, both sentences are equally"
            " probable. These ties count as correct, as in lm-eval; as errors, they would make the accuracy"
            f" {overall.correct / overall.pairs:.4f}.",
            file=sys.stderr,
        )
    warn_of_unknown(
        model.tokenizer,
        "\n".join((*pairs.good, *pairs.bad)).encode(),
        int(scored.unknown.sum()),
        sum(len(text.tokens) for text in (*scored.good, *scored.bad)),
        "They are scored as <unk>: two sentences that differ only in them are a tie.",
    )


def _rows(overall: Accuracy, phenomena: Mapping[str, Accuracy]) -> dict[str, str]:
    """The results as rows to print."""
    width = max(len("pairs"), len(f"{overall.pairs:,}"))
    rows = {"Phenomenon": f"{'accuracy (95% interval)':25}  {'pairs':>{width}}  {'ties':>{width}}"}
    for name, each in (*phenomena.items(), ("All pairs", overall)):
        rows[name] = f"{with_interval(each.estimate, 4):25}  {each.pairs:{width},}  {each.ties:{width},}"
    if len(phenomena) > 1:
        rows["Mean of phenomena"] = f"{_mean(phenomena):.4f}"
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


def pair_table(pairs: Pairs, scored: ScoredPairs) -> Table:
    """One row per pair: its phenomenon, file and row there, whether it is correct or a tie and, of both
    sentences, the bits, the number of tokens, whether one is unknown, and the text."""
    sides = {"good": scored.good, "bad": scored.bad}
    table: Table = {
        "phenomenon": Values(pairs.phenomena),
        "file": Values(pairs.files),
        "row": np.array(pairs.rows),
        "surprisal_good": scored.bits[0],
        "surprisal_bad": scored.bits[1],
        "correct": scored.correct,
        "tie": scored.ties,
    }
    table |= {f"tokens_{side}": np.array([len(s.tokens) for s in texts]) for side, texts in sides.items()}
    table |= {f"unknown_{side}": found > 0 for side, found in zip(sides, scored.unknown, strict=True)}
    table |= {"good": Values(pairs.good), "bad": Values(pairs.bad)}
    for name, values in pairs.kept.items():
        table[f"kept_{name}" if name in table else name] = Values(values)
    return table
