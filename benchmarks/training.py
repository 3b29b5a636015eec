#!/usr/bin/env python
"""Training speed, compared with the machine's matrix rate and with a plain training loop.

python benchmarks/training.py                          three cells at three sizes, on a GPU at five
python benchmarks/training.py --text ptb/train.txt     compared with PyTorch's word-level example

Our step is the one that training runs, on random tokens and without dropout. The plain loop is what a
tutorial writes: torch's layers, cross-entropy on all logits, AdamW and gradient clipping in float32, at the
same shape and with torch's default settings. The two alternate; medians are printed. The matrix rate is that
of one large product in the precision of the step, measured in the same run. A step's matrix work is three
times that of its forward pass. On a GPU, the table also shows the share of the time in which kernels are
active, and the number of kernels per step, both from torch's profiler. A captured step launches all of them
with a single call.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.kernels import kernels_of
from lm.config.schema import RunConfig
from lm.data.corpus import Corpus, Counts, Split
from lm.model.cells import CELLS
from lm.model.device import Precision, choose_device, choose_precision
from lm.tokenization.vocabulary import char_tokenizer
from lm.training.setup import build_learner
from lm.training.step import Step

SIZES = ((256, 32), (512, 64), (1024, 64))  # hidden size, streams
MORE_STREAMS = ((256, 128), (512, 256))  # on a GPU
BPTT = 64
VOCABULARY = 96  # token types of a character-level text
REPEATS = 5
UNSEEN_STEPS = 20  # between two waits for a GPU; training waits as rarely
PROFILED = 20  # steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--text", help="a text file: compare with PyTorch's word-level example")
    add("--optimizer", default="muon", help="the optimizer of our step: muon or adamw")
    add("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    add("--sizes", nargs="+", type=size_of, metavar="UNITSxSTREAMS", help="for example 256x32 512x64")
    add("--precisions", nargs="+", default=["auto"], help="of our step: auto (default), fp16, fp32, ...")
    add("--seconds", type=float, help="minimum duration of a measurement (default: 1; 0.3 on a GPU)")
    options = parser.parse_args()
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    sizes = options.sizes or (SIZES + MORE_STREAMS if on_gpu else SIZES)
    options.seconds = options.seconds or (0.3 if on_gpu else 1.0)
    where = torch.cuda.get_device_name(device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}")
    if options.text:
        words(Path(options.text), device, options)
        return 0
    for name in options.precisions:
        chosen = choose_precision(name, device)
        rate = matrix_rate(device, chosen.dtype)
        print(f"one large product in {chosen.value}: {rate / 1e9:,.0f} GFLOP/s")
        titles = ("cell", "layers", "window", "in", "tokens/s", "matrix rate", "plain loop", "ratio")
        print(row(*titles, on_gpu=on_gpu))
        for cell, (hidden, streams) in itertools.product(options.cells, sizes):
            print(measured(cell, hidden, streams, name, rate, device, options), flush=True)
    return 0


def size_of(text: str) -> tuple[int, int]:
    """'256x32' -> (256, 32)."""
    hidden, streams = text.split("x")
    return int(hidden), int(streams)


def row(*columns: str, on_gpu: bool, kernels: tuple[str, str] = ("kernels", "launches")) -> str:
    """A line of the table."""
    line = "{:5} {:9} {:8} {:5} {:>9} {:>11} {:>13} {:>6}".format(*columns)
    return line + (" {:>8} {:>8}".format(*kernels) if on_gpu else "")


def measured(
    cell: str,
    hidden: int,
    streams: int,
    precision: str,
    rate: float,
    device: torch.device,
    options: argparse.Namespace,
) -> str:
    """The line of a network."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 1_000_000).astype(np.uint16)
    settings = {"cell": cell, "hidden_size": hidden, "batch_size": streams, "embedding_size": hidden}
    ours, used = our_step(tokens, VOCABULARY, device, precision, options, **settings)
    plain = plain_step(cell, hidden, random_windows(streams, BPTT, VOCABULARY, device), device)
    seconds, slow = alternate([ours, plain], device, options.seconds)
    gates = len(CELLS[cell].gates)
    work = 3 * 2 * streams * BPTT * (2 * 2 * gates * hidden**2 + hidden * VOCABULARY)
    on_gpu = device.type == "cuda"
    share, launches = kernels_of(lambda: [ours() for _ in range(PROFILED)], PROFILED) if on_gpu else (0, 0)
    return row(
        cell,
        f"2 x {hidden}",
        f"{streams} x {BPTT}",
        used.value,
        f"{streams * BPTT / seconds:,.0f}",
        f"{work / seconds / rate:.0%}",
        f"{streams * BPTT / slow:,.0f}",
        f"{slow / seconds:.2f}",
        on_gpu=on_gpu,
        kernels=(f"{share:.0%}", f"{launches:,.0f}"),
    )


def words(path: Path, device: torch.device, options: argparse.Namespace) -> None:
    """Compare PyTorch's word-level example (LSTM 2 x 650, tied, batch 20 x 35, float32, SGD, clipping at
    0.25) with our step for the same network at our batch shape."""
    text = path.read_text(encoding="utf-8").replace("\n", " <eos> ").split()
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(text))}
    tokens = np.array([vocabulary[word] for word in text], np.uint16)
    streams = 32
    settings = {"hidden_size": 650, "tie": True, "batch_size": streams, "embedding_size": 650}
    ours, _ = our_step(tokens, len(vocabulary), device, "auto", options, **settings)
    window = torch.from_numpy(tokens[: 20 * 36].astype(np.int64)).view(20, 36).to(device)
    example = plain_step("lstm", 650, window, device, vocab=len(vocabulary), example=True)
    seconds, slow = alternate([ours, example], device, options.seconds)
    print(f"ours ({streams} x {BPTT}): {streams * BPTT / seconds:,.0f} tokens/s")
    print(f"PyTorch's example (20 x 35): {20 * 35 / slow:,.0f} tokens/s")
    print(f"ratio {streams * BPTT / seconds / (20 * 35 / slow):.2f}")


def random_windows(batch: int, bptt: int, vocab: int, device: torch.device) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, bptt + 1), device=device)


def our_step(
    tokens: np.ndarray,
    vocab: int,
    device: torch.device,
    precision: str,
    options: argparse.Namespace,
    **settings: object,
) -> tuple[Callable[[], object], Precision]:
    """The training step of a run on `tokens`, as lm/training/loop.py takes it, and its precision."""
    dropouts = dict.fromkeys(("dropout", "input_dropout", "output_dropout", "weight_dropout"), 0.0)
    recipe = {"bptt": BPTT, "lr": 1e-3, "steps": 1000, "optimizer": options.optimizer}
    where = {"device": device.type, "precision": precision}
    tokenizer = char_tokenizer({chr(number): 1 for number in range(33, 33 + vocab - 2)})  # <unk> and <eos>
    split = Split(tokens, Counts(len(tokens), len(tokens), len(tokens), documents=1, unknown=0))
    corpus = Corpus("random", "random", tokenizer, split, split, None, [len(tokens)], [], {})
    learner = build_learner(RunConfig.from_flat({**dropouts, **recipe, **where, **settings}), corpus)
    step, number = Step(learner, print), itertools.count()
    return lambda: step(next(number), 1e-3), learner.precision


class PlainModel(nn.Module):
    """Embedding, torch's layers, decoder."""

    def __init__(self, cell: str, hidden: int, vocab: int, tie: bool):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.layers = getattr(nn, cell.upper())(hidden, hidden, 2, batch_first=True)
        self.decoder = nn.Linear(hidden, vocab)
        if tie:
            self.decoder.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        hidden, state = self.layers(self.embedding(tokens), state)
        return self.decoder(hidden), state


def plain_step(
    cell: str,
    hidden: int,
    tokens: torch.Tensor,
    device: torch.device,
    vocab: int = VOCABULARY,
    example: bool = False,
) -> Callable[[], None]:
    network = PlainModel(cell, hidden, vocab, tie=example).to(device)
    optimizer = (
        torch.optim.SGD(network.parameters(), lr=1e-3)
        if example
        else torch.optim.AdamW(network.parameters(), lr=1e-3)
    )
    state = None

    def step() -> None:
        nonlocal state
        before = float32_products()
        set_float32_products(("tf32", "ieee"))  # torch's defaults, which `choose_precision` has changed
        optimizer.zero_grad()
        logits, state = network(tokens[:, :-1], state)
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.25)
        optimizer.step()
        state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()
        set_float32_products(before)

    return step


def float32_products() -> tuple[str, str]:
    """How a GPU computes float32 products: in recurrent layers, and elsewhere."""
    return torch.backends.cudnn.rnn.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def set_float32_products(precisions: tuple[str, str]) -> None:
    torch.backends.cudnn.rnn.fp32_precision, torch.backends.cuda.matmul.fp32_precision = precisions


def alternate(steps: list[Callable[[], object]], device: torch.device, minimum: float) -> list[float]:
    """The median duration (seconds) of each step, measured alternately for `minimum` seconds each."""
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(REPEATS + 1):
        for step, seconds in zip(steps, times, strict=True):
            synchronize(device)
            begin, count = time.perf_counter(), 0
            while time.perf_counter() - begin < minimum:
                for _ in range(UNSEEN_STEPS if device.type == "cuda" else 1):
                    step()
                    count += 1
                synchronize(device)
            if repeat > 0:  # the first one warms up
                seconds.append((time.perf_counter() - begin) / count)
    return [statistics.median(seconds) for seconds in times]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of one large `linear`."""
    size = 8192 if device.type == "cuda" else 4096
    x, w = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(7):
        synchronize(device)
        begin = time.perf_counter()
        F.linear(x, w)
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
