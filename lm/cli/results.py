"""The results of `lm evaluate`: rows to print, and values of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lm.config.settings import arguments
from lm.console.invocation import quoted
from lm.console.wording import plural
from lm.data.eval_text import EvalText
from lm.data.report import table_rows
from lm.evaluation.comparison import Comparison
from lm.evaluation.metrics import Metrics
from lm.evaluation.resampling import Parts
from lm.insight.scored_text import ScoredText
from lm.language_model import LanguageModel

# The scores of one model are called "surprisal", those of two "forward", "backward" and "mean", or "model"
# and "other".
ScoresBySide = dict[str, ScoredText]


def describe(name: str, model: LanguageModel) -> str:
    """'runs/hamlet: char, LSTM, 2 layers of 256 units'."""
    config = model.network.config
    layers = f"{plural(config.layers, 'layer')} of {config.hidden_size} units"
    direction = ", right to left" if config.backward else ""
    return f"{name}: {model.tokenizer.kind}, {config.cell.upper()}, {layers}{direction}"


def rows_of_scores(
    descriptions: Sequence[str], text: EvalText, scores: dict[str, ScoresBySide], given: bool
) -> Iterator[dict[str, str]]:
    """The scores as rows to print: a block per side, with a column per mode.

    `descriptions` are those of the models; `given` says that the text was named with --dataset.
    """
    for number, side in enumerate(scores["plain"]):
        sides = [scored[side] for scored in scores.values()]
        if side == "mean":
            rows = {"Mean": "of both models at each token; not a probability of the text"}
        else:
            title = "Model" if side == "surprisal" else side.capitalize()
            rows = {title: descriptions[number]}
        if side == "other":
            rows["Tokens"] = f"{len(sides[0].tokens):,}"
        if number == 0:
            sizes = (plural(count, unit.removesuffix("s")) for unit, count in sides[0].size.items())
            rows["Text"] = f"{text.name}: {', '.join(sizes)}"
            if given:  # of the text held out, training has printed these
                rows |= table_rows(text.tables)
                rows["As in training"] = " ".join(map(quoted, arguments(text.as_trained)))
            if sides[0].bounds is not None:
                rows["State"] = "zero at the beginning of each document (--carry keeps it)"
            elif len(sides[0].separators) and given:
                rows["State"] = "carried from document to document (--reset starts each from zero)"
        if (number == 0 or side == "other") and sides[0].parts.enough:
            rows["Intervals"] = f"95%, from resampling {sides[0].parts}"
        yield rows | _columns({mode: _cells(s.metrics) for mode, s in zip(scores, sides, strict=True)})


def rows_of_differences(model: str, other: str, differences: dict[str, Comparison]) -> dict[str, str]:
    """The differences of two models as rows to print."""
    parts = next(iter(differences.values())).parts
    rows = {"Difference": f"{model} minus {other}; below zero, {model} predicts the text better"}
    if parts.enough:
        rows["Test"] = f"permutation of the signs of {parts}, two-sided"
    cells = {
        mode: {
            "Bits per character": f"{difference.bits_per_character:+.4f}",
            "Bits per byte": f"{difference.bits_per_byte:+.4f}",
            "p": "" if difference.p is None else f"{difference.p:.4f}",
        }
        for mode, difference in differences.items()
    }
    return rows | _columns(cells)


def _cells(metrics: Metrics) -> dict[str, str]:
    """The metrics by their titles."""
    return {
        "Nats per token": f"{metrics.loss:.4f}",
        "Perplexity": f"{metrics.perplexity:.2f}",
        "Bits per character": f"{metrics.bits_per_character:.4f}",
        "Bits per byte": f"{metrics.bits_per_byte:.4f}",
    }


def _columns(cells: dict[str, dict[str, str]]) -> dict[str, str]:
    """The rows of a column for each mode, with their names on top if there are several."""
    columns = [{"": mode, **column} if len(cells) > 1 else column for mode, column in cells.items()]
    widths = [max(map(len, column.values())) for column in columns]
    return {
        title: "  ".join(c[title].ljust(width) for c, width in zip(columns, widths, strict=True)).rstrip()
        for title in columns[0]
    }


def json_record(
    options: dict[str, Any], name: str, labeled: ScoresBySide, differences: dict[str, Comparison]
) -> dict[str, Any]:
    """The results as a JSON object."""
    scored = next(iter(labeled.values()))
    record = {
        "model": options["model"],
        "text": name,
        **scored.size,
        "unknown": scored.unknown,
        "reset": scored.bounds is not None,
        "intervals": _resampled(scored.parts),
        "scores": {label: asdict(each.metrics) for label, each in labeled.items()},
    }
    if differences:
        record["compare"] = options["compare"]
        other = next(each for label, each in labeled.items() if label.startswith("other"))
        record["compare_intervals"] = _resampled(other.parts)
        record["difference"] = {
            mode: {
                "bits_per_character": asdict(difference.bits_per_character),
                "bits_per_byte": asdict(difference.bits_per_byte),
                "p": difference.p,
                "intervals": _resampled(difference.parts),
            }
            for mode, difference in differences.items()
        }
    return record


def _resampled(parts: Parts) -> dict[str, Any] | None:
    """What intervals were computed from, if there are any."""
    return {"level": 0.95, "resampled": f"{parts.unit}s", "parts": len(parts)} if parts.enough else None
