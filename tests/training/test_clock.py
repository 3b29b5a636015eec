"""The clock of a training counts what passes while it runs, and no jumps of the machine's clock."""

import re
import time

import pytest

from lm.cli.train import main
from lm.training.clock import Clock
from tests.conftest import SMALL, metrics


@pytest.fixture
def machine(monkeypatch):
    """A function that lets the machine's clock jump by some seconds."""
    real, jumps = time.perf_counter, []
    monkeypatch.setattr(time, "perf_counter", lambda: real() + sum(jumps))
    return jumps.append


def test_it_counts_on_from_earlier_seconds_while_it_runs():
    clock = Clock(100.0)
    assert clock.seconds() == 100
    with clock.running():
        time.sleep(0.2)
        assert 100.2 <= clock.seconds() < 110
    stopped = clock.seconds()
    time.sleep(0.05)
    assert clock.seconds() == stopped


@pytest.mark.parametrize("jump", [72 * 3600, -72 * 3600, 1e300, float("nan")])
def test_a_jump_is_not_counted(machine, jump):
    clock = Clock()
    with clock.running():
        time.sleep(0.1)
        before = clock.seconds()
        machine(jump)
        assert before <= clock.seconds() < 10
        if abs(jump) < 1e9:
            time.sleep(0.1)
            assert before + 0.1 <= clock.seconds() < 10


@pytest.mark.parametrize("jump", [72 * 3600, -72 * 3600])
@pytest.mark.parametrize("budget", [["--steps", "60"], ["--max-time", "1s"]])
def test_a_training_on_a_machine_whose_clock_jumps(
    tmp_path, text_file, machine, monkeypatch, capsys, jump, budget
):
    from lm.training import record

    sample = record.sample
    monkeypatch.setattr(record, "sample", lambda trainer: (machine(jump), sample(trainer)))
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", str(text_file), *SMALL, *budget, "--out", "r"]) == 0
    seconds = [line["seconds"] for line in metrics(tmp_path / "r")]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 60
    assert re.search(r"^Done +in 0:\d\d$", capsys.readouterr().out, re.MULTILINE)
