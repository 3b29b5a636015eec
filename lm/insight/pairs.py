"""Minimal pairs: how often a model finds the acceptable sentence more probable than the unacceptable one.

>>> import lm
>>> from lm.insight.pairs import score_pairs
>>> scored = score_pairs(lm.load("pretrained"), ["The boats sink."], ["The boats sinks."])
>>> scored.accuracy().estimate.value
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lm.data.pairs import Pairs
from lm.errors import UserError
from lm.evaluation.metrics import Estimate, proportion
from lm.insight.scored_text import ScoredText, Table, Values
from lm.insight.surprisal import score_texts
from lm.insight.table_files import free_name
from lm.language_model import LanguageModel

DELIMITER = " "  # before each sentence: lm-eval's default `target_delimiter`


@dataclass(frozen=True)
class Accuracy:
    """How many pairs a model got right."""

    pairs: int
    correct: int  # pairs whose good sentence is more probable
    ties: int  # pairs of equally probable sentences

    @property
    def estimate(self) -> Estimate:
        """The share of pairs that are correct or ties, and its 95% interval, see `proportion`.

        Ties count as correct, as in lm-eval. Raises UserError if there are no pairs.
        """
        if not self.pairs:
            raise UserError("there are no pairs to compute an accuracy from: choose at least one.")
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
    good: Iterable[str],
    bad: Iterable[str],
    *,
    delimiter: str = DELIMITER,
    precision: str = "fp32",
    progress: Callable[[float], None] = lambda fraction: None,
) -> ScoredPairs:
    """Score the sentences of minimal pairs with `score_texts`, each by itself and after the `delimiter`.

    The tokens of the delimiter are scored too, as lm-eval does. Raises UserError for an ensemble, and if
    `good` and `bad` are not two lists of as many strings.
    """
    sentences, others = list(good), list(bad)
    are_lists = not any(isinstance(each, str | Mapping) for each in (good, bad))
    if not are_lists or not all(isinstance(sentence, str) for sentence in (*sentences, *others)):
        raise UserError("score_pairs takes two lists of sentences, each a str.")
    count = len(sentences)
    if count != len(others):
        raise UserError(f"each good sentence needs a bad one, got {count:,} and {len(others):,} sentences.")
    texts = [delimiter + sentence for sentence in (*sentences, *others)]
    scored = score_texts(model, texts, precision=precision, progress=progress)
    return ScoredPairs(scored[:count], scored[count:])


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
        table[free_name(name, table)] = Values(values)
    return table
