"""What the user sees while a model trains."""

import io
import re

import pytest
from rich.console import Console

from lm.console.terminal import Terminal, duration
from lm.evaluation.validation import Validation
from lm.training.display import Display, StepMetrics


@pytest.mark.parametrize(
    ("done", "left"), [(0.25, "(ETA 2:03)"), (1.0, "(ETA 0:00)"), (1.02, "(ETA 0:00)")], ids=str
)
def test_the_remaining_time_is_shown_and_never_negative(done, left, capsys):
    now = StepMetrics(done, step=100, seconds=41.0, train_loss=2.0, tokens_per_second=1000.0)
    Display(Terminal()).milestone(now)
    line = capsys.readouterr().out
    assert left in line and line.startswith(f"{min(done, 1):4.0%}  step 100  0:41 ")


LATE = StepMetrics(
    done=0.61,
    step=98_765,
    seconds=5025.0,
    train_loss=12.345,
    tokens_per_second=765_432.0,
    validation=Validation(11.234, 75_660.0, 16.21, 16.21, tokens=10),
)


def on_a_terminal(width, act):
    """The lines that `act(display)` prints on a terminal of this width."""
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), force_terminal=True, width=width, soft_wrap=True)
    act(Display(terminal))
    return re.split("[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.console.file.getvalue()))


def draw(display):
    display.start()
    display.update(LATE)
    display.stop()


@pytest.mark.parametrize(("width", "bar"), [(80, 0), (84, 0), (90, 10), (120, 24), (300, 24)])
def test_the_live_line_shows_progress_and_speed_from_80_columns_on(width, bar):
    lines = on_a_terminal(width, draw)
    (line,) = {line.strip() for line in lines if "step" in line}
    assert " 61%  step 98,765  53:33 left  train 12.345  validation 11.234  765,432 char/s" in f" {line}"
    assert len(line) <= width and len(re.findall("[━╸╺]", line)) == bar


def test_a_narrow_terminal_still_shows_the_percentage():
    lines = on_a_terminal(40, draw)
    assert any(line.strip().startswith("61%  step 98,765") for line in lines)


def test_a_line_that_stays_fits_into_80_columns():
    lines = on_a_terminal(80, lambda display: display.milestone(LATE))
    line = " 61%  step 98,765  1:23:45  train 12.345  validation 11.234 (16.210 bits/char)"
    assert lines[0] == line and len(line) <= 80


def test_only_a_warning_of_loss_appears_with_quiet(capsys):
    warnings = []
    for quiet, expected in (
        (False, ("warning: slow\nwarning: lost\n", "")),
        (True, ("", "warning: lost\n")),
    ):
        display = Display(Terminal(quiet))
        display.on_warning = warnings.append
        display.warn("slow")
        display.warn_even_if_quiet("lost")
        assert capsys.readouterr() == expected
    assert warnings == ["slow", "lost"] * 2


def test_durations_look_like_a_clock():
    assert [duration(seconds) for seconds in (42.4, 725, 11045)] == ["0:42", "12:05", "3:04:05"]
