"""Output for people: lines, tables and progress bars, on a terminal or in plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lm.console.escaping import printable
from lm.console.notebook import in_notebook
from lm.console.progress import ProgressCallback
from lm.console.streams import reason
from lm.errors import UserError


class _Console(Console):
    """When the reader of a pipe (`| head`) has closed it, rich would end the program."""

    closed = False

    def on_broken_pipe(self) -> None:
        self.quiet = self.closed = True


class Terminal:
    """Standard output or standard error. Prints nothing if `quiet`, or once the reader of the output has
    closed it."""

    def __init__(self, quiet: bool = False, stderr: bool = False):
        # In a notebook, rich would make each line an output of its own, and need ipywidgets to draw bars.
        self.console = _Console(
            quiet=quiet,
            stderr=stderr,
            highlight=False,
            soft_wrap=True,
            force_jupyter=False,
            force_terminal=False if in_notebook() else None,
        )

    @property
    def closed(self) -> bool:
        """Whether the reader of the output has closed it."""
        return self.console.closed

    def say(self, line: str, style: str = "") -> None:
        """Print one line, above a progress bar if there is one."""
        self.print(Text(printable(line), style=style))

    def print(self, text: RenderableType, **options: Any) -> None:
        """Print a text or a table of rich. Raises UserError if that fails."""
        try:
            self.console.print(text, **options)
        except OSError as error:  # not to be mistaken for an error of a file that is being written
            raise UserError(f"cannot write to standard output: {reason(error)}.") from error

    @contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        """A callback that draws a progress bar on a terminal; elsewhere, it prints one line per task."""
        description = TextColumn("{task.description}", markup=False)
        bar = Progress(
            description, BarColumn(bar_width=24), TimeRemainingColumn(), console=self.console, transient=True
        )
        shown: TaskID | None = None
        last_task = ""

        def show(task: str, fraction: float | None) -> None:
            nonlocal shown, last_task
            if not self.console.is_terminal:
                name = task.partition(",")[0]
                if name != last_task:
                    self.say(f"{name} …")
                last_task = name
                return
            if shown is None:
                shown = bar.add_task("")
                bar.start()
            total = None if fraction is None else 1.0
            bar.update(shown, description=printable(task), total=total, completed=fraction or 0)

        try:
            yield show
        finally:
            if shown is not None:
                bar.stop()

    def table(self, rows: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
        """Print a line per row, leaving out those without a value. On a terminal, long values wrap in their
        column."""
        pairs = rows.items() if isinstance(rows, Mapping) else rows
        shown = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0) + 2
        if not self.console.is_terminal:
            for name, value in shown:
                self.say(f"{name:{width}}{value}")
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        for name, value in shown:
            table.add_row(Text(printable(name)), Text(printable(value)))
        self.print(table, soft_wrap=False)


def duration(seconds: float) -> str:
    """'0:42', '12:05' or '3:04:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
