"""What the user sees while a model trains."""

import pytest

from lm.console.terminal import Terminal, duration
from lm.training.progress import Display, Reading


@pytest.mark.parametrize(
    ("done", "left"), [(0.25, "(ETA 2:03)"), (1.0, "(ETA 0:00)"), (1.02, "(ETA 0:00)")], ids=str
)
def test_the_remaining_time_is_shown_and_never_negative(done, left, capsys):
    now = Reading(done, step=100, seconds=41.0, train_loss=2.0, tokens_per_second=1000.0)
    Display(Terminal()).milestone(now)
    line = capsys.readouterr().out
    assert left in line and line.startswith(f"{min(done, 1):4.0%}  step 100  0:41 ")


def test_durations_look_like_a_clock():
    assert [duration(seconds) for seconds in (42.4, 725, 11045)] == ["0:42", "12:05", "3:04:05"]
