#!/usr/bin/env python
"""RNN, GRU and LSTM with the same number of parameters and the same time: the table of baselines of a paper.

    python benchmarks/baselines.py tinyshakespeare.txt ptb ptb:word --times 1m 5m 10m

Each TEXT is what `lm train --dataset` takes, read as characters, or after a colon as another kind of tokens;
`:word` trains with --preset words. The other cells have as many parameters as an LSTM of --units, to within a
few units. Every run is one of `lm.train` with the defaults of lm, scored once on the test text, or without
one on the validation text. The table has the mean over the seeds and its 95% interval (Student's t), and
below it are the commands of the runs.

First, each cell trains on each text for --measure, to count the steps that the machine takes in that time.
The machine must be idle for these runs. All others take as many steps as fit into their time at that speed:
other work changes neither their results nor the intervals, and --jobs of them can run at the same time.

A run that has finished is not trained again, and one that was interrupted continues: stop and start the
program as you like. All runs of one time come before those of the next.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lm
from lm.config.presets import preset
from lm.config.resolved import NetworkConfig
from lm.config.schema import RunConfig
from lm.config.settings import arguments, parse_duration
from lm.data.corpus import open_corpus
from lm.data.find_source import find_sources
from lm.files.atomic import folder_or_previous
from lm.model.cells import CELLS
from lm.model.size import parameter_count
from lm.storage.run_folder import Run
from lm.tokenization.vocabulary import KINDS
from lm.training.auto import embedding_size

MULTIPLE = 4  # of units
LARGEST = 8192  # units
# 97.5% quantiles of Student's t for 1, 2, … degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
COLUMNS = ("text", "tokens", "split", "time", "cell", "units", "parameters", "bits per character")
COLUMNS += ("bits per byte", "perplexity", "`<unk>`", "steps")


@dataclass(frozen=True)
class Baseline:
    """A network and what it learns from."""

    text: str
    tokenizer: str
    cell: str
    units: int
    layers: int
    has_test: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `lm.train`, without a budget."""
        tokenizer = {"preset": "words"} if self.tokenizer == "word" else {"tokenizer": self.tokenizer}
        sizes = {"cell": self.cell, "layers": self.layers, "hidden_size": self.units}
        test = {"test_split": "test"} if self.has_test else {}
        return {"dataset": self.text, **test, **tokenizer, **sizes}

    def __str__(self) -> str:
        return f"{Path(self.text).stem}-{self.tokenizer}-{self.cell}-{self.layers}x{self.units}"


@dataclass(frozen=True)
class Row:
    """A row of the table: runs that differ in their seeds."""

    baseline: Baseline
    time: str
    steps: int

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `lm.train`."""
        return {**self.baseline.settings, "steps": self.steps}

    def folder(self, out: Path, seed: int) -> Path:
        """The folder of a run."""
        return out / f"{self.baseline}-{self.time}-{seed}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("texts", nargs="+", metavar="TEXT", help="a text, or TEXT:KIND for another kind of tokens")
    add("--times", nargs="+", default=["1m"], metavar="TIME", help="training times (default: 1m)")
    add(
        "--measure",
        default="1m",
        metavar="TIME",
        help="training time in which steps are counted (default: 1m)",
    )
    add("--cells", nargs="+", default=["rnn", "gru", "lstm"], choices=CELLS)
    add("--seeds", type=int, default=3, choices=range(1, len(STUDENT) + 2), help="runs per row (default: 3)")
    add("--units", type=int, default=256, help="units per layer of the LSTM (default: 256)")
    add("--layers", type=int, default=2, help="layers (default: 2)")
    add("--jobs", type=int, default=1, help="runs at the same time; they share the cores (default: 1)")
    add("--out", type=Path, default=Path("runs/baselines"), help="folder of the runs")
    options = parser.parse_args()
    try:
        baselines = [baseline for text in options.texts for baseline in baselines_of(text, options)]
        speeds = [steps_per_second(baseline, options) for baseline in baselines]
        rows = [
            Row(baseline, budget, round(speed * parse_duration(budget)) or 1)
            for budget in options.times
            for baseline, speed in zip(baselines, speeds, strict=True)
        ]
        results = trained_rows(rows, options)
    except lm.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(results, torch.get_num_threads())
    return 0


def baselines_of(text: str, options: argparse.Namespace) -> list[Baseline]:
    """The networks for a text, which have nearly the same number of parameters."""
    name, colon, kind = text.rpartition(":")
    if not colon or kind not in KINDS:
        name, kind = text, "char"
    settings = preset("words") if kind == "word" else {"tokenizer": kind}
    config = RunConfig.from_flat({"dataset": name, "layers": options.layers, **settings})
    (source,) = find_sources(config.data)
    vocab_size = open_corpus(config.data).tokenizer.vocab_size
    width = config.model.embedding_size
    model = replace(config.model, embedding_size=embedding_size(vocab_size) if width == "auto" else width)

    def count(cell: str, units: int) -> int:
        return parameter_count(NetworkConfig.of(replace(model, cell=cell, hidden_size=units)), vocab_size)

    wanted = count("lstm", options.units)
    units = {
        cell: options.units
        if cell == "lstm"
        else min(range(MULTIPLE, LARGEST, MULTIPLE), key=lambda size: abs(count(cell, size) - wanted))
        for cell in options.cells
    }
    has_test = "test" in source.files
    return [Baseline(name, kind, cell, units[cell], options.layers, has_test) for cell in options.cells]


def steps_per_second(baseline: Baseline, options: argparse.Namespace) -> float:
    """The speed of training, validations included, measured in a run of its own."""
    settings = {**baseline.settings, "max_time": options.measure, "seed": 0}
    steps: int = trained(settings, options.out / f"{baseline}-measured")["trained_on"]["steps"]
    return steps / parse_duration(options.measure)


def trained_rows(rows: list[Row], options: argparse.Namespace) -> dict[Row, list[dict[str, Any]]]:
    """The config.json of every run of each row."""
    seeds = range(1, options.seeds + 1)
    runs = [(row, seed) for t in options.times for seed in seeds for row in rows if row.time == t]
    settings = [{**row.settings, "seed": seed} for row, seed in runs]
    folders = [row.folder(options.out, seed) for row, seed in runs]
    results: dict[Row, list[dict[str, Any]]] = {row: [] for row in rows}
    threads = max(torch.get_num_threads() // options.jobs, 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (threads,)) as pool:
        for (row, _), folder, facts in zip(runs, folders, pool.map(trained, settings, folders), strict=True):
            print(f"{folder}: {scores(facts)['bits_per_character']:.4f} bits per character", file=sys.stderr)
            results[row].append(facts)
    return results


def trained(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config.json of a run, which is trained, continued, or has finished already."""
    if folder_or_previous(Run(folder).checkpoint) is not None:
        check_same(settings, folder)
        return lm.train(resume=folder, quiet=True).facts
    # A run without a checkpoint has not taken a step.
    begun = (folder / "training").exists()
    return lm.train(**settings, out=str(folder), quiet=True, sample_every=0, overwrite=begun).facts


def check_same(settings: dict[str, Any], folder: Path) -> None:
    """Raise UserError if the run in a folder is of another text, or for another number of steps or time."""
    names = ("dataset", "steps", "max_time")
    saved = RunConfig.from_flat(Run(folder).settings())
    wanted = RunConfig.from_flat({name: settings[name] for name in names if name in settings})
    for name, found, value in (
        ("text", *(" ".join(config.data.dataset) for config in (saved, wanted))),
        ("number of steps", saved.training.steps, wanted.training.steps),
        ("time in seconds", saved.training.max_time, wanted.training.max_time),
    ):
        if found != value:
            raise lm.UserError(
                f"the {name} of {folder} is {found} rather than {value}: choose another --out."
            )


def scores(facts: dict[str, Any]) -> dict[str, float]:
    """The scores of the test text, or of the validation text if there is none."""
    return facts.get("test") or facts["validation"]


def print_table(results: dict[Row, list[dict[str, Any]]], threads: int) -> None:
    """The table in Markdown, and the commands."""
    seeds = max(map(len, results.values()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{threads} threads"
    print(f"{device}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, seeds 1 to {seeds}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for row, runs in results.items():
        of = row.baseline
        cells = [Path(of.text).name, of.tokenizer, "test" if "test" in runs[0] else "validation"]
        cells += [row.time, of.cell.upper(), f"{of.layers} × {of.units}", f"{runs[0]['parameters']:,}"]
        for name, digits in (("bits_per_character", 4), ("bits_per_byte", 4), ("perplexity", 2)):
            cells.append(mean_and_interval([scores(run)[name] for run in runs], digits))
        unknown = scores(runs[0]).get("unknown_fraction")  # runs of earlier versions have none
        cells.append("" if unknown is None else f"{unknown:.2%}")
        cells.append(f"{row.steps:,}")
        print(f"| {' | '.join(cells)} |")
    print(f"\n    {shlex.join(['python', *sys.argv])}\n")
    for row in results:
        print(f"    lm train {shlex.join(arguments(row.settings))} --seed N")


def mean_and_interval(values: list[float], digits: int) -> str:
    """'2.0815 ± 0.0102': half the width of the 95% interval of the mean; one run has none."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    half = STUDENT[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
