"""The results of an analysis as HTML and as texts of the Look inside tab."""

from __future__ import annotations

import time
from collections.abc import Iterable
from html import escape
from typing import Any

from lm.errors import UserError
from lm.insight.similar import similar_spans
from lm.insight.spans import Snippet
from lm.insight.surprising import most_surprising
from lm.insight.table_files import table_lines
from lm.insight.units import FoundUnit, FoundUnits

from ...ui.i18n import translate
from ...ui.token_view import on_one_line
from .analysis import Analysis, file_name, in_bits

PROPERTY_NAMES = {
    "quotes": "Inside quotes",
    "brackets": "Inside brackets",
    "comments": "Inside comments",
    "line_position": "Position in line",
    "indentation": "Indentation",
    "bracket_depth": "Bracket depth",
    "word_position": "Position in word",
    "vowels": "Vowels",
    "digits": "Digits",
    "upper_case": "Uppercase letters",
    "white_space": "Whitespace",
    "punctuation": "Punctuation",
}
# How a unit tracks a property: its value rises, or falls.
_INSIDE = ("higher inside", "lower inside")
_DIRECTIONS = {
    "quotes": _INSIDE,
    "brackets": _INSIDE,
    "comments": _INSIDE,
    "line_position": ("rises along the line", "falls along the line"),
    "word_position": ("rises along the word", "falls along the word"),
    "indentation": ("rises with the indentation", "falls with the indentation"),
    "bracket_depth": ("rises with the depth", "falls with the depth"),
}


def new_value(**fields: Any) -> dict[str, Any]:
    """A value for a component in static/*.js, which notices only values that differ from the one before."""
    return {**fields, "number": time.time_ns()}


def totals(analysis: Analysis) -> str:
    """The scores of the whole text, in one line."""
    scored, metrics = analysis.scored, analysis.scored.metrics
    tokens = len(scored.tokens)
    figures = (
        translate(
            "{bits:,.1f} bits, {tokens:,} token" if tokens == 1 else "{bits:,.1f} bits, {tokens:,} tokens",
            bits=scored.bits.sum(),
            tokens=tokens,
        ),
        translate("{bits:.3f} bits per character", bits=metrics.bits_per_character.value),
        translate("perplexity {value:.2f}", value=metrics.perplexity.value),
    )
    return " · ".join(figures)


def tables_value(file: tuple[str, str] | None = None) -> dict[str, Any]:
    """The value of the buttons that save tables: their texts, and the name and text of a `file` to save."""
    labels = {"tokens": translate("Download tokens (TSV)"), "words": translate("Download words (TSV)")}
    name, text = file or ("", "")
    return new_value(labels=labels, name=name, text=text)


def table_file(analysis: Analysis, model: str, kind: object) -> tuple[str, str]:
    """The name and the text of a file with the scores of all tokens or words. Raises UserError."""
    if kind not in ("tokens", "words"):
        raise UserError("there is no such table.")
    table = analysis.scored.per_token() if kind == "tokens" else analysis.scored.per_word()
    return file_name(model, f"{kind}.tsv"), "".join(table_lines(table))


def surprising_tokens(analysis: Analysis) -> str:
    """A table of the tokens with the highest surprisal, as HTML."""
    rows = ((in_bits(token.bits), token.snippet) for token in most_surprising(analysis.scored, 10))
    return _snippet_table(translate("Most surprising tokens"), rows)


def similar_contexts(analysis: Analysis, span: tuple[int, int]) -> str:
    """A table of the contexts whose hidden states are most similar to that after `span`, as HTML."""
    rows = ((f"{found.similarity:.3f}", found.snippet) for found in similar_spans(analysis.trace, *span))
    shown = on_one_line(analysis.trace.text[slice(*span)])[:60]
    title = translate("Hidden states most similar to the one after “{span}” (cosine similarity)", span=shown)
    return _snippet_table(title, rows)


def _snippet_table(title: str, rows: Iterable[tuple[str, Snippet]]) -> str:
    lines = (
        f'<tr><td class="number">{escape(number)}</td><td>{_snippet(snippet)}</td></tr>'
        for number, snippet in rows
    )
    table = f"<table>{''.join(lines)}</table>"
    return f'<h2>{escape(title)}</h2><div class="scroll" tabindex="0">{table}</div>'


def _snippet(snippet: Snippet) -> str:
    before, text, after = (
        escape(on_one_line(text)) for text in (snippet.before, snippet.text, snippet.after)
    )
    return f'<code class="snippet">{before}<mark>{text}</mark>{after}</code>'


def note(text: str) -> str:
    """A line about a result, which screen readers announce, as HTML."""
    return f'<p class="note" role="status">{escape(text)}</p>'


def measure(found: FoundUnits) -> str:
    """What the scores of the units mean, in one line."""
    if found.measure == "auc":
        return translate(
            "Best of {count:,} units by AUC: 1 means always higher (or always lower) inside than outside,"
            " 0.5 is chance. Scored on held-out text.",
            count=found.candidates,
        )
    return translate(
        "Best of {count:,} units by rank correlation with the quantity: 1 is perfect, 0 is chance. Scored on"
        " held-out text.",
        count=found.candidates,
    )


def description(property_name: str, unit: FoundUnit) -> str:
    """A unit, its score and how it tracks the property, in one line."""
    rises, falls = _DIRECTIONS.get(property_name, ("higher there", "lower there"))
    return translate(
        "Layer {layer}, unit {unit}, {name}: {score:.2f} ({direction})",
        layer=unit.layer + 1,
        name=unit.name,
        unit=unit.unit,
        score=unit.score,
        direction=translate(rises if unit.direction > 0 else falls),
    )
