"""The clock of a training counts what passes while it runs, and no jumps of the machine's clock."""

import re
import time

import pytest

import lm
from lm.cli.train import main
from lm.config.schema import AUTOMATIC_DROPOUTS
from lm.training import record
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


@pytest.mark.slow
@pytest.mark.parametrize("jump", [72 * 3600, -72 * 3600])
@pytest.mark.parametrize("budget", [["--steps", "60"], ["--max-time", "1s"]])
def test_a_training_on_a_machine_whose_clock_jumps(
    tmp_path, text_file, machine, monkeypatch, capsys, jump, budget
):
    sample = record.sample
    monkeypatch.setattr(record, "sample", lambda trainer: (machine(jump), sample(trainer)))
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", str(text_file), *SMALL, *budget, "--out", "r"]) == 0
    seconds = [line["seconds"] for line in metrics(tmp_path / "r")]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 60
    assert re.search(r"^Done +in 0:\d\d$", capsys.readouterr().out, re.MULTILINE)


def test_a_time_budget_includes_the_last_validation_and_the_final_scoring(tmp_path, text_file, monkeypatch):
    """On a machine that takes four seconds for a step and two for scoring."""
    now, score = [0.0], record.score

    def scored(*arguments):
        now[0] += 2
        return score(*arguments)

    def step(row):
        now[0] += 4

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(record, "score", scored)
    settings = {"hidden_size": 8, "layers": 1, "batch_size": 2, "bptt": 4, "lr": 0.01, "sample_every": 0}
    settings |= dict.fromkeys(AUTOMATIC_DROPOUTS, 0)  # so that no network is timed
    budget = {"max_time": 100, "eval_every": 5, "eval_tokens": 0}
    model = lm.train(text_file, **settings, **budget, on_step=step, out=tmp_path / "r", quiet=True)
    assert 94 < model.history[-1]["seconds"] <= 100
