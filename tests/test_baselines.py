"""benchmarks/baselines.py: cells with as many parameters, runs that are not repeated, and its table."""

import json
import sys

import pytest

import lm
from benchmarks.baselines import check_same, main, mean_and_interval
from lm.config.schema import RunConfig
from lm.storage.run_folder import Run


def test_intervals_are_those_of_student():
    assert mean_and_interval([1.0, 2.0, 6.0], 3) == "3.000 ± 6.573"  # 4.303 · √7 / √3
    assert mean_and_interval([2.0], 1) == "2.0"


def test_a_run_of_another_text_or_budget_is_not_taken_for_that_of_a_row(tmp_path):
    folder = tmp_path / "sea-char-gru-1x64-1m-1"
    (folder / "training").mkdir(parents=True)
    Run(folder).write_config(RunConfig.from_flat({"dataset": "a/sea.txt", "steps": 100}))
    check_same({"dataset": "a/sea.txt", "steps": 100, "seed": 1}, folder)
    for settings, message in (
        ({"dataset": "b/sea.txt", "steps": 100}, f"the text of {folder} is a/sea.txt rather than b/sea.txt:"),
        ({"dataset": "a/sea.txt", "steps": 90}, f"the number of steps of {folder} is 100 rather than 90:"),
    ):
        with pytest.raises(lm.UserError, match=f"{message} choose another --out."):
            check_same(settings, folder)
    Run(folder).write_config(RunConfig.from_flat({"dataset": "a/sea.txt", "max_time": "1m"}))
    check_same({"dataset": "a/sea.txt", "max_time": "60s"}, folder)
    with pytest.raises(lm.UserError, match=f"the time in seconds of {folder} is 60.0 rather than 30.0:"):
        check_same({"dataset": "a/sea.txt", "max_time": "30s"}, folder)


@pytest.mark.slow
def test_runs_are_equal_in_parameters_and_not_repeated(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sea").mkdir()
    for split in ("train", "test"):
        (tmp_path / "sea" / f"{split}.txt").write_text("the sea was calm and the boat was light\n" * 100)
    budget = [
        "--times",
        "0.05s",
        "--measure",
        "0.05s",
        "--seeds",
        "2",
        "--cells",
        "gru",
        "lstm",
        "--units",
        "64",
    ]
    command = ["baselines.py", "sea:word", *budget, "--layers", "1", "--out", "runs"]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| sea")]
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/config.json")}
    assert len(files) == 6  # with those that measure the speed
    rows = [line.strip("| ").split(" | ") for line in table]
    assert [row[:5] for row in rows] == [["sea", "word", "test", "0.05s", cell] for cell in ("GRU", "LSTM")]
    counts = [int(row[6].replace(",", "")) for row in rows]
    assert abs(counts[0] / counts[1] - 1) < 0.05
    folders = [tmp_path / "runs" / f"sea-word-lstm-1x64-0.05s-{seed}" for seed in (1, 2)]
    runs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert rows[1][8] == mean_and_interval([run["test"]["bits_per_byte"] for run in runs], 4)
    assert rows[1][6] == f"{runs[0]['parameters']:,}"
    assert main() == 0
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| sea")]
    assert again == table
    assert files == {file: file.stat().st_mtime_ns for file in files}
    monkeypatch.setattr(sys, "argv", [*command, "--measure", "0.1s"])
    assert main() == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("is 0.05 rather than 0.1: choose another --out.\n")
