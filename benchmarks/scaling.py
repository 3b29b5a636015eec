#!/usr/bin/env python
"""How much faster two ranks with one thread each learn than one.

python benchmarks/scaling.py                   three cells of 2 x 256 and an LSTM of 2 x 512
python benchmarks/scaling.py --batch-size 128  at another global batch

Each measurement is the training step of lm/training/loop.py on Python's standard library, started by
torchrun with one and with two ranks in turn; medians are printed. Both learn from the same global
batch: with two ranks each goes through half of its streams.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lm.config import RunConfig
from lm.data.stream import open_corpus
from lm.ranks import Ranks, joined_ranks
from lm.training.loop import build, step
from lm.training.progress import Display

NETWORKS = ("lstm-256", "gru-256", "rnn-256", "lstm-512")
BPTT = 64
SECONDS = 3.0  # that one measurement lasts, at least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="CELL-SIZE")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    if "RANK" in os.environ:
        with joined_ranks() as ranks:
            measure(options, ranks)
        return 0
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in options.networks}
    for _ in range(options.repeats):
        for number in (0, 1):
            for name, rate in started(number + 1).items():
                rates[name][number].append(rate)
    print("network   batch    one rank, tokens/s   two ranks, tokens/s   ratio")
    for name, (one, two) in rates.items():
        a, b = statistics.median(one), statistics.median(two)
        print(f"{name:9} {options.batch_size:3} x {BPTT} {a:19,.0f} {b:21,.0f} {b / a:7.2f}")
    return 0


def started(ranks: int) -> dict[str, float]:
    """The tokens a second of each network on so many ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*torchrun, "--nproc-per-node", str(ranks), *sys.argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(result.stdout)


def measure(options: argparse.Namespace, ranks: Ranks) -> None:
    rates = {}
    for name in options.networks:
        cell, size = name.split("-")
        config = RunConfig.from_flat(
            {"cell": cell, "hidden_size": int(size), "batch_size": options.batch_size, "bptt": BPTT}
            | {"dropout": 0, "lr": 1e-3, "steps": 1000}
        )
        corpus = ranks.one_on_each_machine(lambda config=config: open_corpus(config.data))
        trainer = build(config, corpus, Display(quiet=True), ranks)
        trainer.network.train()
        for _ in range(3):  # warms up
            step(trainer)
        begin, count, gone = time.perf_counter(), 0, 0.0
        while gone < SECONDS:
            agreement = ranks.agreeing(time.perf_counter() - begin, [])
            step(trainer)
            gone, _ = agreement()
            trainer.progress.step += 1
            count += 1
        rates[name] = count * trainer.windows.tokens_per_step / (time.perf_counter() - begin)
    if ranks.first:
        print(json.dumps(rates))


if __name__ == "__main__":
    sys.exit(main())
