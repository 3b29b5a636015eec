"""What a person reads while a model trains."""

import pytest

from lm.training.progress import Display, Reading, duration


@pytest.mark.parametrize(
    ("done", "left"), [(0.25, "(ETA 2:03)"), (1.0, "(ETA 0:00)"), (1.02, "(ETA 0:00)")], ids=str
)
def test_what_is_left_is_told_and_a_budget_spent_leaves_nothing(done, left, capsys):
    Display().milestone(Reading(done, step=100, seconds=41.0, train_loss=2.0, tokens_per_second=1000.0))
    line = capsys.readouterr().out
    assert left in line and line.startswith(f"{min(done, 1):4.0%}  step 100  0:41 ")


def test_a_duration_is_read_as_on_a_clock():
    assert [duration(seconds) for seconds in (42.4, 725, 11045)] == ["0:42", "12:05", "3:04:05"]
