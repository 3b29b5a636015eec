"""Whether the first row of a CSV file names the columns or is data, judged by the rows below it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lm.data.values import is_figure

_WORDS = 5  # above which a cell is long for the name of a column
_SENTENCE_ENDS = (".", "!", "…", "。", "！")
_PROMPT_ENDS = ("?", "？", ":", "：", "*")  # of the questions of a form, which have answers below them
_MOST = 0.9  # of the cells in a column
_CATEGORIES = 6  # cells from which on a column with few distinct ones has categories


def like_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """A cell that shows that the first row is data, or None if the row is a header. `rows` are those below.

    A cell is data if it occurs again below, or if it and the cells below are figures. Otherwise, the row is a
    header if a cell looks like the name of the figures or categories below it, or like a question. A row of
    text that is as long as the text below it, or that has none below it, is data.
    """
    below = [[row[number].strip() for row in rows if len(row) == len(first)] for number in range(len(first))]
    columns = [(cell.strip(), list(filter(None, cells))) for cell, cells in zip(first, below, strict=True)]
    for cell, cells in columns:
        if cell and (cell in cells or (is_figure(cell) and 2 * sum(map(is_figure, cells)) >= len(cells))):
            return cell
    if any(_names(cell, cells) for cell, cells in columns):
        return None
    return next((cell for cell, cells in columns if _is_text(cell) and _is_like(cell, cells)), None)


def _names(cell: str, cells: list[str]) -> bool:
    """Whether a cell differs from those below it as a name does from what it names."""
    if not cell or not cells or is_figure(cell):
        return False
    figures = sum(map(is_figure, cells)) >= _MOST * len(cells)
    categories = len(cells) >= _CATEGORIES and 3 * len(set(cells)) <= len(cells)
    prompt = cell.endswith(_PROMPT_ENDS) and sum(c.endswith(_PROMPT_ENDS) for c in cells) < len(cells) / 10
    return figures or categories or prompt


def _is_text(cell: str) -> bool:
    return len(cell.split()) >= _WORDS or cell.endswith((*_SENTENCE_ENDS, *_PROMPT_ENDS))


def _is_like(cell: str, cells: list[str]) -> bool:
    """Whether the text below a text is as long as it."""
    return not cells or 2 * median(map(len, cells)) >= len(cell)
