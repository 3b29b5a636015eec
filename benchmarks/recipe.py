#!/usr/bin/env python
"""What each part of the recipe contributes: the change in loss when it is changed.

    python benchmarks/recipe.py tinyshakespeare.txt ptb/train.txt python
    python benchmarks/recipe.py tinyshakespeare.txt --regime long --changes dropout,tied

Every run is the real script with 128 units and a fixed number of steps. In the regime `short`, a million
characters are read once. In the regime `long`, a hundred thousand are read about fifteen times, where
regularization matters. Differences are in nats per token; a negative one means that the change is better. The
row `another seed` shows the size of random differences.
"""

import argparse
import statistics
import sys

from quality import trained

CELLS = ("lstm", "gru", "rnn")
REGIMES = {
    "short": ["--max-chars", "1100000", "--steps", "480"],
    "long": ["--max-chars", "100000", "--steps", "660", "--dropout", "0", "--output-dropout", "0"],
}
CHANGES = {
    "another seed": ["--seed", "2"],
    "not residual": ["--no-residual"],
    "wide vectors": ["--embedding-size", "128"],
    "tied": ["--tie"],
    "3 layers": ["--layers", "3"],
    "half the rate": ["--lr", 0.5],  # times the default
    "twice the rate": ["--lr", 2.0],
    "linear": ["--schedule", "linear"],
    "no decay": ["--weight-decay", "0"],
    "adamw": ["--optimizer", "adamw"],
    "dropout": ["--dropout", "0.2"],
    "unlocked dropout": ["--dropout", "0.2", "--no-locked-dropout"],
    "input dropout": ["--input-dropout", "0.1"],
    "output dropout": ["--output-dropout", "0.2"],
    "embedding dropout": ["--embedding-dropout", "0.1"],
    "weight dropout": ["--weight-dropout", "0.2"],
    "activation penalties": ["--activation-reg", "0.05", "--temporal-activation-reg", "0.05"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", help="as for lm train --dataset")
    parser.add_argument("--regime", choices=REGIMES, default="short")
    parser.add_argument("--changes", default=",".join(CHANGES), help="which to try, separated by commas")
    parser.add_argument("--cells", default=",".join(CELLS))
    options = parser.parse_args()
    cases = [(dataset, cell) for dataset in options.datasets for cell in options.cells.split(",")]
    print(f"| {options.regime} | " + " | ".join(f"{d.split('/')[-1]} {c}" for d, c in cases) + " | mean |")
    print("|---" * (len(cases) + 2) + "|")
    plain = [run(options.regime, dataset, cell) for dataset, cell in cases]
    print("| defaults | " + " | ".join(f"{loss:.3f}" for loss, _ in plain) + " | |", flush=True)
    for name in options.changes.split(","):
        differences = []
        for (dataset, cell), (loss, rate) in zip(cases, plain, strict=True):
            change = [str(part * rate) if isinstance(part, float) else part for part in CHANGES[name]]
            differences.append(run(options.regime, dataset, cell, change)[0] - loss)
        differences.append(statistics.mean(differences))
        print(f"| {name} | " + " | ".join(f"{d:+.3f}" for d in differences) + " |", flush=True)
    return 0


def run(regime: str, dataset: str, cell: str, change: list[str] | None = None) -> tuple[float, float]:
    """The validation loss (nats per token) and the learning rate."""
    options = ["--cell", cell, "--hidden-size", "128", *REGIMES[regime], *(change or [])]
    config, _, settings = trained(dataset, options)
    return config["validation"]["loss"], settings["lr"]


if __name__ == "__main__":
    sys.exit(main())
