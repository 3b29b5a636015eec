"""benchmarks/baselines.py: cells with as many parameters, runs that are not repeated, and its table."""

import json
import sys

import pytest

from benchmarks.baselines import main, mean_and_interval


def test_intervals_are_those_of_student():
    assert mean_and_interval([1.0, 2.0, 6.0], 3) == "3.000 ± 6.573"  # 4.303 · √7 / √3
    assert mean_and_interval([2.0], 1) == "2.0"


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
