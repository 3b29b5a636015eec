"""The scores of several models as HTML tables, and as colors of the words of a text.

Texts and model names are data: everything is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from lm.insight.scored_text import ScoredText
from lm.insight.spans import Snippet

from ...ui.errors import as_sentence
from ...ui.i18n import translate
from ...ui.model_choices import short_name
from ...ui.model_facts import note
from ...ui.token_view import (
    MAX_LEVEL,
    Legend,
    colored_tokens,
    on_one_line,
    quoted,
    surprisal_legend,
    surprisal_level,
)
from .scores import Comparison, unknown_share

BY_DISAGREEMENT = "disagreement"  # a value of `color_by`; the others are the models' numbers
_MAX_UNKNOWN_SHARE = 0.01  # of a text's tokens
_BITS_PER_LEVEL = 2.0  # of a word's surprisal
_DIFFERENCE_PER_LEVEL = 1.0  # in bits
_NEAR = 8  # characters on either side of a word that a phone shows, too


def scores_table(comparison: Comparison) -> str:
    """The scores of each model, the best first."""
    head = [
        translate("Model"),
        translate("Bits per character"),
        translate("Perplexity"),
        translate("Tokens"),
        translate("Total bits"),
    ]
    rows: list[list[str]] = []
    for name, scored in sorted(comparison.scored.items(), key=_rank):
        rows += _scores_rows(name, scored)
    for name, error in comparison.errors.items():
        rows += [[escape(name), *["–"] * 4], [escape(as_sentence(error))]]
    return _table(translate("Scores of the text"), head, rows)


def _rank(item: tuple[str, ScoredText]) -> tuple[bool, float]:
    """Sort by bits per character, with models that do not know enough of the text last."""
    _, scored = item
    return unknown_share(scored) > _MAX_UNKNOWN_SHARE, scored.metrics.bits_per_character.value


def _scores_rows(name: str, scored: ScoredText) -> list[list[str]]:
    scores = [
        escape(name),
        f"{scored.metrics.bits_per_character.value:.3f}",
        f"{scored.metrics.perplexity.value:,.2f}",
        f"{len(scored.tokens):,}",
        f"{scored.bits.sum():,.1f}",
    ]
    if not scored.unknown:
        return [scores]
    remark = translate(
        "{share:.1%} of the tokens are unknown to this model, which makes its scores look too good.",
        share=unknown_share(scored),
    )
    return [scores, [escape(remark)]]


def disagreements_table(comparison: Comparison) -> str:
    """The words with the largest differences between models; empty if there are none."""
    found = comparison.disagreements()
    if not found:
        return ""
    names = list(comparison.scored)
    head = [
        translate("Line"),
        translate("Largest disagreements"),
        *(f'<span title="{escape(name)}">{escape(short_name(name))}</span>' for name in names),
        translate("Difference in bits"),
    ]
    rows = [
        [
            f"{disagreement.line:,}",
            _context(disagreement.snippet),
            *(f"{disagreement.bits[name]:.1f}" for name in names),
            f"{disagreement.difference:.1f}",
        ]
        for disagreement in found
    ]
    caption = translate("Bits of each word and the whitespace after it, by model")
    return _table(caption, head, rows)


def _context(snippet: Snippet) -> str:
    before, after = snippet.before, snippet.after
    far, near, text, near_after, far_after = (
        escape(on_one_line(part))
        for part in (before[:-_NEAR], before[-_NEAR:], snippet.text, after[:_NEAR], after[_NEAR:])
    )
    return (
        f'<span class="context"><span class="far">{far}</span>{near}<mark>{text}</mark>'
        f'{near_after}<span class="far">{far_after}</span></span>'
    )


def color_words(comparison: Comparison, color_by: str) -> dict[str, Any]:
    """The words, colored by the difference between models or by the surprisal under one of them.

    With two models, a difference is warm if the first was more surprised, and cold if the second was.
    """
    names, bits = list(comparison.scored), comparison.bits
    if color_by == BY_DISAGREEMENT:
        levels = [surprisal_level(value, _DIFFERENCE_PER_LEVEL) for value in comparison.spread()]
        legend = surprisal_legend(_DIFFERENCE_PER_LEVEL)
        if len(names) == 2:
            first, second = (bits[name] for name in names)
            levels = [level if a >= b else -level for level, a, b in zip(levels, first, second, strict=True)]
            high, low = (translate("{model}: more bits", model=short_name(name)) for name in names)
            legend = Legend(low, high, -MAX_LEVEL)
    else:
        levels = [surprisal_level(value, _BITS_PER_LEVEL) for value in bits[names[int(color_by)]]]
        legend = surprisal_legend(_BITS_PER_LEVEL)
    tooltips = ["\n".join(_bits_by_model(comparison, word)) for word in range(len(levels))]
    return colored_tokens(comparison.pieces(), levels, tooltips, legend=legend)


def word_details(comparison: Comparison, word: int) -> str:
    """A word of the text and its bits under each model, as HTML."""
    line = " · ".join([quoted(comparison.words.texts[word]), *_bits_by_model(comparison, word)])
    if not comparison.known[word]:
        line += f" · {translate('unknown to at least one model')}"
    return note(line)


def _bits_by_model(comparison: Comparison, word: int) -> list[str]:
    return [
        translate("{model}: {bits:.1f} bits", model=name, bits=bits[word])
        for name, bits in comparison.bits.items()
    ]


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML cells; the first cell of each row is its header. A row of one cell is a remark on the
    row above it."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        if rest
        else f'<tr class="remark"><td colspan="{len(head)}">{first}</td></tr>'
        for first, *rest in rows
    )
    # The table can be wider than a phone: the frame scrolls, and takes the focus to do so by keyboard.
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody>"
        "</table></div>"
    )


def color_choices(comparison: Comparison) -> list[tuple[str, str]]:
    """What the words can be colored by, with the values of `color_by`."""
    names = list(comparison.scored)
    choices = [
        (translate("Surprisal under {model}", model=name), str(number)) for number, name in enumerate(names)
    ]
    if len(names) > 1:
        choices.insert(0, (translate("Disagreement"), BY_DISAGREEMENT))
    return choices
