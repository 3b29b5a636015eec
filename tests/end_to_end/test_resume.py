"""A run that was killed at any moment and resumed ends as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, script

SETTINGS = [
    "--hidden-size", "48", "--layers", "2", "--dropout", "0.2", "--batch-size", "8", "--bptt", "32",
    "--steps", "160", "--save-every", "7", "--sample-every", "40",
]  # fmt: skip
CLOCK = ("seconds", "tokens_per_second")


def outcome(run):
    """What must be equal: the weights, and all figures but those of the clock."""
    records = [json.loads(line) for line in (run / "training/metrics.jsonl").read_text().splitlines()]
    config = json.loads((run / "config.json").read_text())
    config["trained_on"].pop("seconds")
    return (
        (run / "model.safetensors").read_bytes(),
        [{k: v for k, v in record.items() if k not in CLOCK} for record in records],
        config,
        (run / "training/samples.txt").read_text(),
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_kills_at_random_moments_change_nothing(tmp_path, text_file, cell, precision):
    settings = ["--dataset", text_file, "--cell", cell, "--precision", precision, *SETTINGS]
    begin = time.perf_counter()
    assert script("train.py", *settings, "--out", "whole", cwd=tmp_path).returncode == 0
    duration = time.perf_counter() - begin

    choose = random.Random()
    run, kills = tmp_path / "killed", 0
    for attempt in range(12):
        first = not (run / "training" / "checkpoint").exists()
        if first:
            how = [*map(str, settings), "--out", "killed", *(["--overwrite"] if run.exists() else [])]
        else:
            how = ["--resume", "killed"]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *how], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        try:
            # Late enough to do something, early enough to hit it at work.
            process.wait(timeout=duration * choose.uniform(0.55, 0.95) if attempt < 8 else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 1
    assert outcome(run) == outcome(tmp_path / "whole")
