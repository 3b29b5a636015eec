#!/usr/bin/env python
"""The loss that each cell reaches on a text in a given time, with the defaults of train.py.

    python benchmarks/quality.py tinyshakespeare.txt --max-time 60s

Other flags are passed on to train.py. Runs happen one after the other, each in a process of its own. The
machine should be idle: two busy processes on two cores slow each other down many times over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a text file, such as Tiny Shakespeare (not in this repository)")
    parser.add_argument("--max-time", default="60s", help="training time per run (default: 60s)")
    parser.add_argument("--cells", default="lstm,gru,rnn", help="default: lstm,gru,rnn")
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs per cell, whose median is printed (default: 1)"
    )
    options, train_options = parser.parse_known_args()
    if not Path(options.dataset).exists():
        print(f"error: there is no file '{options.dataset}'.", file=sys.stderr)
        return 2
    print("| cell | nats per token | bits per character | characters/s | steps |")
    print("|---|---|---|---|---|")
    for cell in options.cells.split(","):
        runs = [measure(options, cell, seed, train_options) for seed in range(1, options.seeds + 1)]
        loss, bits, speed, steps = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {cell} | {loss:.4f} | {bits:.4f} | {speed:,.0f} | {steps:,.0f} |", flush=True)
    return 0


def measure(
    options: argparse.Namespace, cell: str, seed: int, train_options: list[str]
) -> tuple[float, float, float, int]:
    """Validation loss, bits per character, median training speed and steps of one run."""
    budget = ["--cell", cell, "--max-time", options.max_time, "--seed", str(seed)]
    config, records, _ = trained(options.dataset, [*budget, *train_options])
    validation, trained_on = config["validation"], config["trained_on"]
    characters_per_token = trained_on["characters"] / trained_on["tokens"]
    speeds = [r["tokens_per_second"] * characters_per_token for r in records if "tokens_per_second" in r]
    bits = validation["bits_per_character"]
    return validation["loss"], bits, statistics.median(speeds), trained_on["steps"]


def trained(dataset: str, options: list[str]) -> tuple[dict, list[dict], dict]:
    """The config.json, the metrics and the settings of a run of train.py in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, ROOT / "train.py", "--dataset", dataset, *options]
        subprocess.run([*command, "--sample-every", "0", "--quiet", "--out", run], check=True)
        config = json.loads((run / "config.json").read_text("utf-8"))
        records = [json.loads(line) for line in (run / "training" / "metrics.jsonl").open("rb")]
        return config, records, yaml.safe_load((run / "training" / "config.yaml").read_text("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
