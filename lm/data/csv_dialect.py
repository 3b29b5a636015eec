"""The dialect of a CSV file, recognized by its first lines: the delimiter, and what quotes mean.

RFC 4180 is one dialect among several. In others, spaces follow the delimiter, a backslash precedes quotes
within a cell, or there is no quoting. One of them is read only if RFC 4180 does not fit. Where none fits,
reading ends in an error that names the line: no cell is ever repaired by dropping a part of it.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lm.console.wording import plural
from lm.errors import DataError

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a pipe"}
NO_DELIMITER = "\uffff"  # no character
_MOST = 0.9  # of the rows below a title


@dataclass(frozen=True)
class Dialect:
    """How the cells of a CSV file are written."""

    delimiter: str
    spaced: bool = False  # spaces after the delimiter do not belong to the cell
    escaped: bool = False  # a backslash precedes quotes, delimiters and backslashes that are text
    quoted: bool = True  # otherwise quotes are text

    def reader(self, lines: Iterable[str]) -> Any:
        """A reader of the `csv` module. It raises csv.Error at the first line in another dialect."""
        style: dict[str, Any] = {"delimiter": self.delimiter, "skipinitialspace": self.spaced, "strict": True}
        if not self.quoted:
            return csv.reader(lines, quoting=csv.QUOTE_NONE, **style)
        if self.escaped:
            return csv.reader(self._escaped(lines), escapechar="\\", **style)
        return csv.reader(lines, **style)

    def _escaped(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines with a second backslash before those that escape nothing, which would be dropped."""
        pattern = re.compile(rf'\\(["\\\r\n{re.escape(self.delimiter)}]?)')
        for line in lines:
            yield pattern.sub(lambda m: m[0] if m[1] else r"\\", line) if "\\" in line else line


@dataclass
class _Sample:
    """The first rows in a dialect, the number of the last line of each, and whether they are valid."""

    rows: list[list[str]]
    lines: list[int]
    valid: bool

    @property
    def width(self) -> int:
        """The number of cells in the first row."""
        return len(self.rows[0]) if self.rows else 0

    @property
    def agreeing(self) -> float:
        """The fraction of rows with as many cells as the first."""
        return sum(len(row) == self.width for row in self.rows) / max(len(self.rows), 1)


def first_rows(dialect: Dialect, head: list[str]) -> list[list[str]]:
    """The rows in the first lines of a file, up to the first error."""
    return _sample(dialect, head, complete=True).rows


def recognize(file: str, head: list[str], complete: bool, begin: int, given: str | None) -> Dialect:
    """The dialect of a file with these first lines, counted from `begin` on; `complete` if there are no more.

    The delimiter is the `given` one, else that with which at least half of the rows have as many cells as the
    first; the comma, if several do. Without one, each row is a single cell. Raises DataError if most rows
    have a different number of cells than the first.
    """
    delimiters = [given] if given else [d for d in DELIMITERS if any(d in line for line in head)]
    escapes = (False, True) if any('\\"' in line for line in head) else (False,)
    styles = [{"escaped": escaped, "spaced": spaced} for escaped in escapes for spaced in (False, True)]
    fitting: list[tuple[float, int, Dialect]] = []
    broken: list[tuple[float, int, Dialect]] = []  # some line is in another dialect
    for dialect in (Dialect(delimiter, **style) for style in styles for delimiter in delimiters):
        sample = _sample(dialect, head, complete)
        if given or (sample.width > 1 and sample.agreeing >= 0.5):
            (fitting if sample.valid else broken).append((sample.agreeing, sample.width, dialect))
    if fitting:
        agreeing, _, dialect = max(fitting, key=lambda each: each[:2])
        return _spaced(dialect, agreeing, head, complete)
    for dialect in (Dialect(delimiter, quoted=False) for delimiter in delimiters):
        sample = _sample(dialect, head, complete)
        if (given or sample.width > 1) and sample.agreeing == 1 and _unpaired(sample):
            return dialect
    if broken:  # reading it raises the error
        return max(broken, key=lambda each: each[0])[2]
    for delimiter in delimiters:
        readings = [*(Dialect(delimiter, **style) for style in styles), Dialect(delimiter, quoted=False)]
        samples = (_sample(dialect, head, complete) for dialect in readings)
        _check_header(file, next(sample for sample in samples if sample.valid), delimiter, begin)
    for dialect in (Dialect(NO_DELIMITER, escaped=escaped) for escaped in escapes):
        if _sample(dialect, head, complete).valid:
            return dialect
    unquoted = Dialect(NO_DELIMITER, quoted=False)
    return unquoted if _unpaired(_sample(unquoted, head, complete)) else Dialect(NO_DELIMITER)


def _sample(dialect: Dialect, head: list[str], complete: bool) -> _Sample:
    reader = dialect.reader(head)
    sample = _Sample([], [], valid=True)
    try:
        for row in reader:
            if row:
                sample.rows.append(row)
                sample.lines.append(reader.line_num)
    except csv.Error as error:
        sample.valid = not complete and is_unclosed(error)
    else:
        if not complete and len(sample.rows) > 1:
            sample.rows.pop()  # it may continue in the next line
    return sample


def is_unclosed(error: csv.Error) -> bool:
    """Whether the error is that the file ends within a quoted cell."""
    return str(error).startswith("unexpected end")


def _spaced(dialect: Dialect, agreeing: float, head: list[str], complete: bool) -> Dialect:
    """The dialect with spaces after the delimiter, if quotes follow them; otherwise, the dialect."""
    spaced = Dialect(dialect.delimiter, spaced=True, escaped=dialect.escaped)
    other = _sample(spaced, head, complete)
    if not other.valid or other.agreeing < agreeing:
        return dialect
    rows = _sample(dialect, head, complete).rows
    same = [[cell.lstrip(" ") for cell in row] for row in rows] == [
        [cell.lstrip(" ") for cell in row] for row in other.rows
    ]
    return dialect if same else spaced


def _unpaired(sample: _Sample) -> bool:
    """Whether most cells that begin with a quote do not end with one, as in dialogue without quoting."""
    cells = [cell.strip() for row in sample.rows for cell in row if cell.lstrip().startswith('"')]
    return 2 * sum(len(cell) > 1 and cell.endswith('"') for cell in cells) < max(len(cells), 1)


def _check_header(file: str, sample: _Sample, delimiter: str, begin: int) -> None:
    """Raise DataError if the rows are cells with this delimiter, but not as many as in the first row."""
    below = list(zip(sample.rows, sample.lines, strict=False))[1:]
    width, _ = Counter(len(row) for row, _ in below).most_common(1)[0] if below else (0, 0)
    if width < 2:
        return
    start = next(number for number, (row, _) in enumerate(below) if len(row) == width)
    table = [row for row, _ in below[start:]]
    regular = len(table) > 1 and sum(len(row) == width for row in table) >= _MOST * len(table)
    # A comma before a space is punctuation, as long as nothing else suggests that it is a delimiter.
    prose = all(cell.lstrip('"').startswith(" ") for row in table for cell in row[1:])
    split = sample.width > 1 and 2 * sum(len(row) > 1 for row, _ in below) > len(below)
    if not split and (not regular or prose):
        return
    row, line = next((row, line) for row, line in below[start:] if len(row) != sample.width)
    raise DataError(
        f"{file}, line {line + begin - 1:,}, has {plural(len(row), 'cell')} and the first row has"
        f" {sample.width:,}: delete lines above the header, quote cells that contain the delimiter"
        f" ({delimiter!r}), or rename the file to .txt if it is text."
    )
