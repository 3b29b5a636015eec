"""A unit's colored text as an SVG image, for a slide or a paper.

Nothing here depends on Gradio. The image needs no fonts but the viewer's monospaced one: every run of
characters has a position and a width of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape

from ...ui.i18n import translate
from .analysis import Analysis

_COLUMNS, _LINES = 80, 40  # of the text; the rest of a longer text is not in the image
_CELL, _LINE, _MARGIN, _TOP = 9.0, 22, 20, 78
_OPACITY = 0.06  # of the color, per level: as in styles/page.css
_WARM, _COLD = "rgb(234,88,12)", "rgb(37,99,235)"
_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_FORBIDDEN = re.compile("[^ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Run = tuple[str, int, int, int]  # text, color level, column and width in columns


def render_svg(analysis: Analysis, model: str, layer: int, unit: int, name: str, title: str) -> str:
    """The text colored by a state or gate of a unit, below `title`, the name of the model and a legend.

    Raises UserError if the unit does not exist.
    """
    colored = analysis.color_by_unit(layer, name, unit)
    lines = list(_lines(colored["tokens"], colored["levels"]))
    shown = lines[:_LINES]
    if len(lines) > _LINES:
        shown.append([("…", 0, 0, 1)])
    width, height = 2 * _MARGIN + _COLUMNS * _CELL, _TOP + len(shown) * _LINE + _MARGIN
    legend = colored["legend"]
    source = translate("model: {name}", name=model)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{_xml(title)}</title>",
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        '<g font-family="system-ui, sans-serif" fill="#111827">',
        f'<text x="{_MARGIN}" y="32" font-size="17" font-weight="600">{_xml(title)}</text>',
        f'<text x="{_MARGIN}" y="56" font-size="13" fill="#4b5563">{_xml(source)}</text>',
        *_legend(legend["low"], legend["high"], legend["first"], width - _MARGIN),
        f'</g><g font-family="{_FONT}" font-size="15" fill="#111827">',
    ]
    for number, runs in enumerate(shown):
        parts += _drawn(runs, _TOP + number * _LINE)
    return "\n".join([*parts, "</g></svg>"])


def _lines(tokens: Sequence[str], levels: Sequence[int]) -> Iterator[list[Run]]:
    """The text in lines of at most `_COLUMNS` columns, as runs of one color."""
    line: list[Run] = []
    column = 0
    for token, level in zip(tokens, levels, strict=True):
        for character in token.replace("\t", "    "):
            cells = _cells(character)
            if character == "\n" or column + cells > _COLUMNS:
                yield line
                line, column = [], 0
            if character == "\n":
                continue
            if line and line[-1][1] == level:
                text, _, begin, width = line.pop()
                line.append((text + character, level, begin, width + cells))
            else:
                line.append((character, level, column, cells))
            column += cells
    if line:
        yield line


def _cells(character: str) -> int:
    """The columns of a character: 2 in East Asian scripts, 0 for combining marks."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _drawn(runs: Sequence[Run], top: float) -> Iterator[str]:
    for text, level, column, width in runs:
        x, extent = _MARGIN + column * _CELL, width * _CELL
        if level:
            yield (f'<rect x="{x:g}" y="{top}" width="{extent:g}" height="{_LINE}" {_fill(level)}/>')
        if text.strip():
            yield (
                f'<text x="{x:g}" y="{top + 16}" textLength="{extent:g}" xml:space="preserve">'
                f"{_xml(text)}</text>"
            )


def _legend(low: str, high: str, first: int, right: float) -> Iterator[str]:
    """The color scale between the values at its ends, ending at `right`."""
    size, levels = 12, range(first, 10)
    begin = right - 44 - size * len(levels)
    yield f'<text x="{begin - 6:g}" y="56" font-size="13" fill="#4b5563" text-anchor="end">{_xml(low)}</text>'
    for place, level in enumerate(levels):
        fill = _fill(level) if level else 'fill="white"'
        yield f'<rect x="{begin + place * size:g}" y="45" width="{size}" height="{size}" {fill}/>'
    width = size * len(levels)
    yield (
        f'<rect x="{begin:g}" y="45" width="{width}" height="{size}" fill="none" stroke="#d1d5db"/>'
        f'<text x="{begin + width + 6:g}" y="56" font-size="13" fill="#4b5563">{_xml(high)}</text>'
    )


def _fill(level: int) -> str:
    return f'fill="{_WARM if level > 0 else _COLD}" fill-opacity="{abs(level) * _OPACITY:.2f}"'


def _xml(text: str) -> str:
    """Escaped, without the characters that XML does not allow."""
    return escape(_FORBIDDEN.sub("\ufffd", text))
