"""What a person sees while a model trains: facts, one live line, samples, the end.

On a terminal the live line is redrawn; into a file or a pipe go plain lines.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lm.data.progress import ProgressCallback
from lm.escaping import printable
from lm.invocation import command
from lm.training.facts import Facts

if TYPE_CHECKING:  # what is shown before torch is needed shall not wait for it
    from lm.evaluation.losses import Validation

_INDENT = " " * 6
_PLAIN_LINE_EVERY = 30.0  # seconds


@dataclass
class Reading:
    """The figures of the moment."""

    done: float  # share of the budget, 0 to 1
    step: int
    seconds: float
    train_loss: float
    tokens_per_second: float
    validation: Validation | None = None


class Display:
    """Prints a run's progress to standard output, or to standard error; silent when `quiet`."""

    def __init__(self, quiet: bool = False, stderr: bool = False):
        self.console = Console(quiet=quiet, stderr=stderr, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._last_line = time.monotonic()
        self._last_task = ""
        self._characters_per_token = 1.0
        self.on_warning: Callable[[str], None] | None = None  # is called with each one, without "Warning: "

    def say(self, line: str) -> None:
        """One line above the live one."""
        self.console.print(Text(line))

    def warn(self, line: str) -> None:
        """Print a warning above the live line, and report it to `on_warning`."""
        self.say(f"Warning: {line}")
        if self.on_warning:
            self.on_warning(line)

    @contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        """A callback that shows the progress of what precedes training."""
        try:
            yield self._show_progress
        finally:
            self.stop()

    def _show_progress(self, task: str, fraction: float | None) -> None:
        if not self.console.is_terminal:
            if self._last_task != (begun := task.partition(",")[0]):
                self._last_task = begun
                self.say(f"{begun} …")
            return
        if not self._live:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
            self._live = Progress(*columns, console=self.console, transient=True)
            self._task = self._live.add_task("")
            self._live.start()
        self._live.update(
            self._task, description=task, total=None if fraction is None else 1.0, completed=fraction or 0
        )

    def facts(self, facts: Facts, folder: Path) -> None:
        """Print what is about to be trained, and on what."""
        self._characters_per_token = facts.characters_per_token
        self.table(
            **facts.text,
            Model=facts.model,
            Compute=facts.compute,
            Budget=facts.budget,
            Run=str(folder),
        )
        for warning in facts.warnings:
            self.console.print(Text(f"warning: {warning}", style="yellow"))
        self.console.print()

    def start(self) -> None:
        """Begin the live line."""
        self._live = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            auto_refresh=False,
            disable=not self.console.is_terminal,
        )
        self._task = self._live.add_task("", total=1.0, figures="")
        self._live.start()

    def stop(self) -> None:
        """End the live line."""
        if self._live:
            self._live.stop()
            self._live = None

    def update(self, now: Reading) -> None:
        """Redraw the live line, or print a plain one now and then."""
        if self.console.is_terminal and self._live:
            self._live.update(self._task, completed=min(now.done, 1.0), figures=self._figures(now))
            self._live.refresh()
        elif time.monotonic() - self._last_line > _PLAIN_LINE_EVERY:
            self.milestone(now)

    def milestone(self, now: Reading) -> None:
        """A line that stays."""
        self._last_line = time.monotonic()
        self.say(f"{min(now.done, 1):4.0%}  {self._figures(now)}")

    def sample(self, text: str) -> None:
        """A short sample of what the model writes now."""
        text = Text(printable(text.rstrip().strip("\n")), style="dim")
        # On a terminal long lines go on below themselves. Nothing pads them at the right: terminals
        # do not agree on how wide some characters are, and a line too long by one leaves an empty one.
        wide = self.console.width - len(_INDENT) if self.console.is_terminal else sys.maxsize
        lines = (Text(_INDENT) + line for line in text.wrap(self.console, wide))
        self.console.print(Text("\n").join(lines), end="\n\n")

    def finish(self, figures: dict[str, Validation], seconds: float, run: Path, plot: Path) -> None:
        """The figures of the best weights on each split, and how to go on."""
        self.table(
            Done=f"in {duration(seconds)}",
            **{
                split.capitalize(): f"{v.loss:.4f} nats per token, perplexity {v.perplexity:.2f},"
                f" {v.bits_per_character:.4f} bits per character, {v.bits_per_byte:.4f} bits per byte"
                for split, v in figures.items()
            },
            Run=str(run),
            Curve=str(plot),
            Sample=f"{command('generate')} {shlex.quote(str(run))}",
            Page=f"{command('app')}{_models_flag(run)}",
        )

    def table(self, **rows: str) -> None:
        """A line for each row that is not empty; on a terminal, long ones go on below themselves."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        width = max(map(len, rows)) + 2
        for name, value in rows.items():
            if value and self.console.is_terminal:
                table.add_row(name, Text(value))
            elif value:
                self.say(f"{name:{width}}{value}")
        if self.console.is_terminal:
            self.console.print(table, soft_wrap=False)

    def _figures(self, now: Reading) -> str:
        left = now.seconds * max(1 - now.done, 0.0) / now.done if now.done > 0 else 0.0  # may end late
        parts = [f"step {now.step:,}", f"{duration(now.seconds)} (ETA {duration(left)})"]
        parts.append(f"train {now.train_loss:.3f}")
        if now.validation:
            parts.append(
                f"validation {now.validation.loss:.3f} ({now.validation.bits_per_character:.3f} bits/char)"
            )
        parts.append(f"{now.tokens_per_second * self._characters_per_token:,.0f} char/s")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """'0:42', '12:05' or '3:04:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _models_flag(run: Path) -> str:
    return "" if run.parent == Path("runs") else f" --models {shlex.quote(str(run.parent))}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
