#!/usr/bin/env python
"""The speedup of two ranks with one thread each over a single one.

python benchmarks/scaling.py                   three cells of 2 x 256 and an LSTM of 2 x 512
python benchmarks/scaling.py --batch-size 128  another global batch size

Each measurement runs steps of lm/training/loop.py on Python's standard library. Both learn from the same
global batch: each of two ranks processes half of its streams. The measurements alternate, the second rank
sleeping while the first learns alone, so that other work on the machine slows both. Medians are printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lm.config.schema import RunConfig
from lm.data.corpus import open_corpus
from lm.distributed import ALONE, Ranks, joined_ranks
from lm.training.setup import build_learner
from lm.training.state import Learner
from lm.training.step import Step

NETWORKS = ("lstm-256", "gru-256", "rnn-256", "lstm-512")
BPTT = 64
SECONDS = 0.5  # minimum duration of a measurement


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="CELL-SIZE")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N")
    parser.add_argument("--repeats", type=int, default=20, metavar="N")
    options = parser.parse_args()
    if "RANK" not in os.environ:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*torchrun, *sys.argv], env=environment).returncode
    with joined_ranks() as ranks:
        if ranks.is_main_process:
            print("network   batch    one rank, tokens/s   two ranks, tokens/s   ratio", flush=True)
        for name in options.networks:
            measure(name, options, ranks)
    return 0


def measure(name: str, options: argparse.Namespace, ranks: Ranks) -> None:
    cell, size = name.split("-")
    config = RunConfig.from_flat(
        {"cell": cell, "hidden_size": int(size), "batch_size": options.batch_size, "bptt": BPTT}
        | {"dropout": 0, "lr": 1e-3, "steps": 1000}
    )
    corpus = ranks.one_on_each_machine(lambda: open_corpus(config.data))
    alone, together = (build_learner(config, corpus, which) for which in (ALONE, ranks))
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.repeats):
        if ranks.is_main_process:
            rates[0].append(rate(alone, ALONE))
        ranks.start_agreement(0.0, [])()  # the others wait here
        rates[1].append(rate(together, ranks))
    if ranks.is_main_process:
        a, b = map(statistics.median, rates)
        ratio = statistics.median(two / one for one, two in zip(*rates, strict=True))
        print(f"{name:9} {options.batch_size:3} x {BPTT} {a:19,.0f} {b:21,.0f} {ratio:7.2f}", flush=True)


def rate(learner: Learner, ranks: Ranks) -> float:
    """Tokens per second, after one warm-up step."""
    learner.network.train()
    step = Step(learner, print)
    lr = learner.optimizer.rate
    step(0, lr)
    begin, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < SECONDS:
        agreement = ranks.start_agreement(time.perf_counter() - begin, [])
        step(count, lr)
        elapsed, _ = agreement()
        count += 1
    return count * learner.windows.tokens_per_step / (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
