"""What the user sees while a model trains: facts, a live progress line, samples, and the results.

On a terminal the live line is redrawn. In a notebook it is a bar above the loss curve, which is redrawn as
well. In a file or a pipe, plain lines appear from time to time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lm.config.schema import RUNS
from lm.console.escaping import printable
from lm.console.invocation import command, quoted
from lm.console.notebook import in_notebook
from lm.console.terminal import Terminal, duration
from lm.evaluation.validation import Validation
from lm.training.facts import Facts
from lm.training.panel import Panel

_INDENT = " " * 6
_LIVE_WIDTH = 80  # columns that the live line needs without its bar
_PLAIN_LINE_EVERY = 30.0  # seconds


@dataclass
class StepMetrics:
    """The metrics of the current step."""

    done: float  # share of the budget, 0 to 1
    step: int
    seconds: float
    train_loss: float
    tokens_per_second: float
    validation: Validation | None = None


class Display:
    """Shows a run's progress on a terminal."""

    def __init__(self, terminal: Terminal):
        self._terminal, self._console = terminal, terminal.console
        room = self._console.width - _LIVE_WIDTH
        bar = [BarColumn(bar_width=min(room, 24))] if room >= 5 else []
        self._live = Progress(
            *bar,
            TextColumn("{task.percentage:>3.0f}%  {task.fields[metrics]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
            disable=not self._console.is_terminal,
        )
        self._task = self._live.add_task("", total=1.0, metrics="")
        self._panel = Panel() if in_notebook() and not self._console.quiet else None
        self._last_line = time.monotonic()
        self._characters_per_token = 1.0
        self.on_warning: Callable[[str], None] | None = None  # called with each, without "warning: "

    @property
    def closed(self) -> bool:
        """Whether the reader of the output (`| head`) has closed it: nothing is printed any more."""
        return self._terminal.closed

    def say(self, line: str) -> None:
        """Print one line above the live one."""
        self._terminal.say(line)

    def warn(self, line: str) -> None:
        """Print a warning above the live line, and report it to `on_warning`."""
        self.say(f"warning: {line}")
        if self.on_warning:
            self.on_warning(line)

    def warn_even_if_quiet(self, line: str) -> None:
        """Print a warning about lost work, with --quiet to standard error."""
        if self._console.quiet:
            print(f"warning: {printable(line)}", file=sys.stderr)
        self.warn(line)

    def facts(self, facts: Facts, folder: Path) -> None:
        """Print what is about to be trained, and on what."""
        self._characters_per_token = facts.characters_per_token
        rows = {"Model": facts.model, "Recipe": facts.recipe, "Compute": facts.compute}
        self._terminal.table({**facts.text, **rows, "Budget": facts.budget, "Run": str(folder)})
        for warning in facts.warnings:
            self._terminal.say(f"warning: {warning}", style="yellow")
        self.say("")

    def start(self) -> None:
        """Show the live line."""
        if not self._panel:
            self._live.start()

    def stop(self) -> None:
        """Remove the live line; in a notebook, leave the curve."""
        if self._panel:
            self._panel.close()
        else:
            self._live.stop()

    def update(self, now: StepMetrics) -> None:
        """Redraw the live line or the panel of a notebook, or print a plain line from time to time."""
        if self._panel:
            self._panel.update(now.done, self._metrics(now))
        elif self._console.is_terminal:
            self._live.update(self._task, completed=min(now.done, 1.0), metrics=self._short_metrics(now))
            self._live.refresh()
        elif time.monotonic() - self._last_line > _PLAIN_LINE_EVERY:
            self.milestone(now)

    def curve_due(self, step: int) -> bool:
        """Whether the loss curve should be drawn even without a validation, for a notebook."""
        return self._panel is not None and self._panel.curve_due(step)

    def curve(self, svg: str, step: int) -> None:
        """Show the loss curve up to `step`, in a notebook."""
        if self._panel:
            self._panel.curve(svg, step)

    def milestone(self, now: StepMetrics) -> None:
        """Print a line that stays."""
        self._last_line = time.monotonic()
        metrics = self._metrics(now)
        if self._console.is_terminal:  # in 80 columns; the live line has the speed and the time that is left
            metrics = "  ".join([_step(now), duration(now.seconds), *_losses(now, with_bits=True)])
        self.say(f"{min(now.done, 1):4.0%}  {metrics}")

    def sample(self, text: str) -> None:
        """Print a short sample of the model's text."""
        dimmed = Text(printable(text.rstrip().strip("\n")), style="dim")
        # Wrapped here and not padded at the right: terminals disagree on the width of some characters, and
        # a line that is one column too long would leave an empty line behind.
        width = self._console.width - len(_INDENT) if self._console.is_terminal else sys.maxsize
        lines = (Text(_INDENT) + line for line in dimmed.wrap(self._console, width))
        self._terminal.print(Text("\n").join(lines), end="\n\n")

    def finish(
        self, results: dict[str, Validation], change: str, seconds: float, run: Path, plot: Path
    ) -> None:
        """Print the results of the best weights on each split, what fine-tuning has changed, if it was one,
        and the commands to try next."""
        models = "" if run.parent == RUNS else f" --models {quoted(run.parent)}"
        rows = {"Done": f"in {duration(seconds)}"}
        for split, v in results.items():
            rows[split.capitalize()] = (
                f"{v.loss:.4f} nats per token, perplexity {v.perplexity:.2f},"
                f" {v.bits_per_character:.4f} bits per character, {v.bits_per_byte:.4f} bits per byte"
            )
        rows |= {"Fine-tuning": change} if change else {}
        rows |= {"Run": str(run), "Curve": str(plot)}
        rows["Sample"] = f"{command('generate')} {quoted(run)}"
        rows["Web UI"] = f"{command('app')}{models}"
        self._terminal.table(rows)

    def _metrics(self, now: StepMetrics) -> str:
        """All of them, about 95 columns."""
        times = f"{duration(now.seconds)} (ETA {_time_left(now)})"
        return "  ".join([_step(now), times, *_losses(now, with_bits=True), self._speed(now)])

    def _short_metrics(self, now: StepMetrics) -> str:
        """Those of the live line."""
        left = f"{_time_left(now)} left"
        return "  ".join([_step(now), left, *_losses(now, with_bits=False), self._speed(now)])

    def _speed(self, now: StepMetrics) -> str:
        return f"{now.tokens_per_second * self._characters_per_token:,.0f} char/s"


def _step(now: StepMetrics) -> str:
    return f"step {now.step:,}"


def _time_left(now: StepMetrics) -> str:
    # A budget may be exceeded slightly: nothing is left then.
    return duration(now.seconds * max(1 - now.done, 0.0) / now.done if now.done > 0 else 0.0)


def _losses(now: StepMetrics, with_bits: bool) -> list[str]:
    """The training loss and, once there is one, the validation loss."""
    losses = [f"train {now.train_loss:.3f}"]
    if now.validation:
        bits = f" ({now.validation.bits_per_character:.3f} bits/char)" if with_bits else ""
        losses.append(f"validation {now.validation.loss:.3f}{bits}")
    return losses
