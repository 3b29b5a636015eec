"""What the Compare tab shows of a text that several models have scored: tables, and the text in colours.

Texts and the names of models are data, so all of it is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from lm.escaping import printable
from lm.insight.surprisal import ScoredText

from ...ui.i18n import translate
from ...ui.model_facts import note
from ...ui.token_view import MAX_LEVEL, colored_tokens
from .comparison import Judgement, perplexity, unknown_share

APART = "apart"  # the choice of colours that is no model's
_MOST_UNKNOWN = 0.01  # of a text's tokens
_BITS_A_LEVEL = 2.0  # a word has more of them than the token that a token view is made for
_BITS_APART = 1.0  # likewise, of the difference between models


def figures(judgement: Judgement) -> str:
    """The table of the models' figures, the best first."""
    head = [
        translate("Model"),
        translate("Bits per character"),
        translate("Perplexity"),
        translate("Tokens"),
        translate("Bits in all"),
    ]
    rows = []
    for name, scored in sorted(judgement.scored.items(), key=_how_good):
        unknown = ""
        if scored.unknown:
            unknown = translate("It does not know {share:.1%} of its tokens, so its figures look too good.",
                           share=unknown_share(scored))  # fmt: skip
        rows.append([
            _named(name, unknown), f"{scored.figures.bits_per_character.value:.3f}",
            f"{perplexity(scored):,.2f}", f"{len(scored.tokens):,}", f"{scored.bits.sum():,.1f}",
        ])  # fmt: skip
    rows += [[_named(name, why[:1].upper() + why[1:]), *["–"] * 4] for name, why in judgement.refused.items()]
    return _table(translate("The text as each model scores it"), head, rows)


def places(judgement: Judgement) -> str:
    """The table of the words about which the models disagree most."""
    found = judgement.disagreements()
    if not found:
        return ""
    names = list(judgement.scored)
    head = [
        translate("Line"),
        translate("Where they disagree most"),
        *map(escape, names),
        translate("Difference in bits"),
    ]
    rows = []
    for one in found:
        place = one.place
        context = f"{escape(_flat(place.before))}<mark>{escape(_flat(place.text))}</mark>"
        bits = [f"{one.bits[name]:.1f}" for name in names]
        rows.append([
            f"{one.line:,}", f'<span class="context">{context}{escape(_flat(place.after))}</span>',
            *bits, f"{one.difference:.1f}",
        ])  # fmt: skip
    caption = translate("Bits of a word and of the white space after it, by each model")
    return _table(caption, head, rows)


def view(judgement: Judgement, colours: str) -> dict[str, Any]:
    """The text, each word coloured by how far the models are apart, or by one model's surprisal."""
    names, bits = list(judgement.scored), judgement.bits
    apart = colours == APART
    values = judgement.spread() if apart else bits[names[int(colours)]]
    # With two models the colour tells which one was more surprised: warm the first, cold the second.
    signed = apart and len(names) == 2
    sign = bits[names[0]] >= bits[names[1]] if signed else [True] * len(values)
    levels = [
        min(MAX_LEVEL, int(value / (_BITS_APART if apart else _BITS_A_LEVEL))) * (1 if first else -1)
        for value, first in zip(values, sign, strict=True)
    ]
    tips = [
        "\n".join(translate("{model}: {bits:.1f} bits", model=name, bits=bits[name][n]) for name in names)
        for n in range(len(levels))
    ]
    return colored_tokens(judgement.pieces(), levels, tips)


def _how_good(item: tuple[str, ScoredText]) -> tuple[bool, float]:
    """By bits per character, but models that know too little of a text to say something about it last."""
    return unknown_share(item[1]) > _MOST_UNKNOWN, item[1].figures.bits_per_character.value


def word_line(judgement: Judgement, number: int) -> str:
    """A word of the text and its bits by each model, as HTML."""
    bits = (
        translate("{model}: {bits:.1f} bits", model=name, bits=values[number])
        for name, values in judgement.bits.items()
    )
    line = f"“{_flat(judgement.words.texts[number])}” · {' · '.join(bits)}"
    if not judgement.known[number]:
        line += f" · {translate('not all of the models know it')}"
    return note(line)


def _named(name: str, odd: str) -> str:
    return escape(name) + (f'<br><span class="odd">{escape(odd)}</span>' if odd else "")


def _flat(text: str) -> str:
    return printable(text).replace("\n", "↵ ")


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first of a row names it."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # It may be wider than a phone; who has no mouse scrolls it by its frame.
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )
