"""A run that is killed at any moment and resumed ends as if nothing had happened."""

import json
import random
import re
import shutil
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import script, started

SETTINGS = ["--hidden-size", "48", "--layers", "2", "--dropout", "0.2", "--batch-size", "8", "--bptt", "32"]
SETTINGS += ["--steps", "160", "--save-every", "11", "--sample-every", "40"]
CLOCK = ("seconds", "tokens_per_second")


def outcome(run):
    """What must be equal: the weights, and all metrics except those of the clock."""
    records = [json.loads(line) for line in (run / "training/metrics.jsonl").read_text().splitlines()]
    config = json.loads((run / "config.json").read_text())
    config["trained_on"].pop("seconds")
    return (
        (run / "model.safetensors").read_bytes(),
        [{k: v for k, v in record.items() if k not in CLOCK} for record in records],
        config,
        (run / "training/samples.txt").read_text(),
    )


def step_of(run):
    """The step of the last checkpoint; 0 before the first, or while one replaces another."""
    try:
        return json.loads((run / "training/checkpoint/progress.json").read_text())["step"]
    except (OSError, ValueError):
        return 0


def last_metrics(run):
    """The step of the last complete line of metrics."""
    path = run / "training/metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("\n") else 0


def kill_while_training(command, folder, moment, pause=0.0):
    """Run a training and kill -9 it when `moment()` is true."""
    process = started("train.py", *command, cwd=folder)
    deadline = time.monotonic() + 60
    while not moment() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


CUDA = pytest.mark.gpu


@pytest.mark.parametrize(
    ("cell", "precision", "device", "kills"),
    [
        ("lstm", "fp32", "cpu", 3),
        pytest.param("lstm", "bf16", "cpu", 3, marks=pytest.mark.slow),
        pytest.param("gru", "fp32", "cpu", 3, marks=pytest.mark.slow),
        pytest.param("rnn", "fp32", "cpu", 3, marks=pytest.mark.slow),
        pytest.param("lstm", "bf16", "cuda", 4, marks=CUDA),
        pytest.param("gru", "fp32", "cuda", 3, marks=CUDA),
        pytest.param("rnn", "fp16", "cuda", 3, marks=CUDA),
    ],
)
def test_kills_at_random_moments_change_nothing(tmp_path, text_file, cell, precision, device, kills):
    settings = ["--dataset", str(text_file), "--cell", cell, "--precision", precision, "--device", device]
    settings += SETTINGS
    assert script("train.py", *settings, "--out", "whole", cwd=tmp_path).returncode == 0

    run, command = tmp_path / "killed", [*settings, "--out", "killed"]
    # First when the metrics are ahead of the checkpoint, then at random.
    kill_while_training(command, tmp_path, lambda: last_metrics(run) > step_of(run) >= 11)
    assert last_metrics(run) > step_of(run)
    command = ["--resume", "killed"]
    for step in sorted(random.sample(range(40, 130), kills - 1)):
        kill_while_training(command, tmp_path, lambda: step_of(run) >= step, random.uniform(0, 0.03))  # noqa: B023
    result = script("train.py", *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert outcome(run) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_kills_of_an_extended_run_change_nothing(tmp_path, text_file):
    settings = ["--dataset", str(text_file), "--precision", "fp32", *SETTINGS]
    settings[settings.index("160")] = "40"
    assert script("train.py", *settings, "--out", "whole", cwd=tmp_path).returncode == 0
    run = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", run)
    command = ["--steps", "130"]
    assert script("train.py", "--resume", "whole", *command, cwd=tmp_path).returncode == 0
    kill_while_training(["--resume", "killed", *command], tmp_path, lambda: last_metrics(run) > 55)
    kill_while_training(["--resume", "killed"], tmp_path, lambda: step_of(run) >= 90)
    result = script("train.py", "--resume", "killed", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert outcome(run) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_kill_before_a_rollback_changes_nothing(tmp_path, text_file):
    """The rate grows until the loss explodes by step 75; the copy to return to is an earlier one."""
    settings = ["--dataset", str(text_file), "--cell", "gru", "--precision", "fp32", *SETTINGS]
    settings += ["--lr", "1", "--warmup", "0.9", "--track", "tensorboard"]
    whole = script("train.py", *settings, "--out", "whole", cwd=tmp_path)
    assert re.search(r"by step 75: back to step (50|64)", whole.stdout), whole.stdout + whole.stderr

    run = tmp_path / "killed"
    kill_while_training([*settings, "--out", "killed"], tmp_path, lambda: step_of(run) >= 66)
    assert script("train.py", "--resume", "killed", cwd=tmp_path).returncode == 0
    assert outcome(run) == outcome(tmp_path / "whole")
    *records, _ = outcome(run)[1]
    assert [r["step"] for r in records] == sorted({*range(16, 161, 16), *range(25, 161, 25)})
    # The tracker has what the file has: nothing twice, and nothing that was rolled back.
    events = EventAccumulator(str(run / "training/tensorboard")).Reload()
    tracked = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert tracked == [(r["step"], pytest.approx(r["train_loss"])) for r in records]
