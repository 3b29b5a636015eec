#!/usr/bin/env python
"""RNN, GRU and LSTM with as many parameters and as much time: the table of baselines of a paper.

    python benchmarks/baselines.py tinyshakespeare.txt ptb ptb:word --max-times 1m 5m 10m

Each TEXT is what `lm train --dataset` takes, read as characters, or after a colon as another kind of tokens;
`:word` trains with --preset words. The other cells have as many parameters as an LSTM of --units, to within a
few units. Every run is one of `lm.train` with the defaults of lm, scored once on the test text, or without
one on the validation text. The table has the mean over the seeds and its 95% interval (Student's t), and
below it are the commands of the runs.

A run that has finished is not trained again, and one that was interrupted continues: stop and start the
program as you like. Runs happen one after the other, all cells with one seed before the next seed. The
machine should be idle: other work takes time from the runs.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lm
from lm.config.presets import preset
from lm.config.resolved import NetworkConfig
from lm.config.schema import RunConfig
from lm.config.settings import arguments
from lm.data.corpus import open_corpus
from lm.data.sources import find_sources
from lm.files import folder_or_previous
from lm.model.cells import CELLS
from lm.run_folder import Run
from lm.tokenization.vocabulary import KINDS
from lm.training.auto import embedding_size, parameters

MULTIPLE = 4  # of units
LARGEST = 8192  # units
# 97.5% quantiles of Student's t for 1, 2, … degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
COLUMNS = ("text", "tokens", "split", "time", "cell", "units", "parameters", "bits per character")
COLUMNS += ("bits per byte", "perplexity", "steps")


@dataclass(frozen=True)
class Row:
    """A row of the table: runs that differ in their seeds."""

    text: str
    tokenizer: str
    max_time: str
    cell: str
    units: int
    layers: int
    has_test: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `lm.train`."""
        tokenizer = {"preset": "words"} if self.tokenizer == "word" else {"tokenizer": self.tokenizer}
        sizes = {"cell": self.cell, "layers": self.layers, "hidden_size": self.units}
        test = {"test_split": "test"} if self.has_test else {}
        return {"dataset": self.text, **test, **tokenizer, **sizes, "max_time": self.max_time}

    def folder(self, out: Path, seed: int) -> Path:
        """The folder of a run."""
        name = f"{Path(self.text).stem}-{self.tokenizer}-{self.max_time}-{self.cell}"
        return out / f"{name}-{self.layers}x{self.units}-{seed}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("texts", nargs="+", metavar="TEXT", help="a text, or TEXT:KIND for another kind of tokens")
    add("--max-times", nargs="+", default=["1m"], metavar="TIME", help="training times (default: 1m)")
    add("--cells", nargs="+", default=["rnn", "gru", "lstm"], choices=CELLS)
    add("--seeds", type=int, default=3, choices=range(1, len(STUDENT) + 2), help="runs per row (default: 3)")
    add("--units", type=int, default=256, help="units per layer of the LSTM (default: 256)")
    add("--layers", type=int, default=2, help="layers (default: 2)")
    add("--out", type=Path, default=Path("runs/baselines"), help="folder of the runs")
    options = parser.parse_args()
    try:
        rows = [row for text in options.texts for row in rows_of(text, options)]
        results: dict[Row, list[dict[str, Any]]] = {row: [] for row in rows}
        for seed in range(1, options.seeds + 1):
            for row in rows:
                results[row].append(trained(row, options.out, seed))
    except lm.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(results)
    return 0


def rows_of(text: str, options: argparse.Namespace) -> list[Row]:
    """The rows of a text, whose cells have nearly the same number of parameters."""
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
        return parameters(NetworkConfig.of(replace(model, cell=cell, hidden_size=units)), vocab_size)

    wanted = count("lstm", options.units)
    units = {
        cell: options.units
        if cell == "lstm"
        else min(range(MULTIPLE, LARGEST, MULTIPLE), key=lambda size: abs(count(cell, size) - wanted))
        for cell in options.cells
    }
    return [
        Row(name, kind, max_time, cell, units[cell], options.layers, "test" in source.files)
        for max_time in options.max_times
        for cell in options.cells
    ]


def trained(row: Row, out: Path, seed: int) -> dict[str, Any]:
    """The config.json of a run, which is trained, continued, or has finished already."""
    folder = row.folder(out, seed)
    if folder_or_previous(Run(folder).checkpoint) is not None:
        model = lm.train(resume=folder, quiet=True)
    else:  # a run without a checkpoint has not taken a step
        settings = {**row.settings, "seed": seed, "out": str(folder), "quiet": True, "sample_every": 0}
        model = lm.train(**settings, overwrite=(folder / "training").exists())
    bits = scores(model.facts)["bits_per_character"]
    print(f"{folder}: {bits:.4f} bits per character", file=sys.stderr)
    return model.facts


def scores(facts: dict[str, Any]) -> dict[str, float]:
    """The scores of the test text, or of the validation text if there is none."""
    return facts.get("test") or facts["validation"]


def print_table(results: dict[Row, list[dict[str, Any]]]) -> None:
    """The table in Markdown, and the commands."""
    seeds = max(map(len, results.values()))
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    )
    print(f"{device}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, seeds 1 to {seeds}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for row, runs in results.items():
        cells = [Path(row.text).name, row.tokenizer, "test" if "test" in runs[0] else "validation"]
        cells += [row.max_time, row.cell.upper(), f"{row.layers} × {row.units}"]
        cells += [f"{runs[0]['parameters']:,}"]
        for name, digits in (("bits_per_character", 4), ("bits_per_byte", 4), ("perplexity", 2)):
            cells.append(mean_and_interval([scores(run)[name] for run in runs], digits))
        cells.append(f"{statistics.mean(run['trained_on']['steps'] for run in runs):,.0f}")
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
