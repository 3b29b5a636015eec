#!/usr/bin/env python
"""Training speed, compared with the machine's matrix rate and with a plain training loop.

python benchmarks/training.py                          three cells at three sizes
python benchmarks/training.py --text ptb/train.txt     compared with PyTorch's word-level example

The plain loop is what a tutorial writes: torch's layers, cross-entropy on all logits, AdamW and gradient
clipping in float32, at the same shape. The two alternate; medians are printed. The matrix rate is that of one
large product in the precision of the step, measured in the same run. A step's matrix work is three times that
of its forward pass. On a GPU, the table also shows the share of the time in which kernels run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lm.config.resolved import ResolvedConfig
from lm.config.schema import RunConfig
from lm.model.cells import CELLS
from lm.model.device import Precision, autocast, choose_device, choose_precision
from lm.model.network import RecurrentLM
from lm.training.optimizer import make_optimizer

SIZES = ((256, 32, 64), (512, 64, 64), (1024, 64, 64))  # hidden size, batch size, BPTT length
VOCABULARY = 96  # token types of a character-level text
REPEATS = 5
SECONDS = 1.0  # minimum duration of a measurement


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--text", help="a text file: compare with PyTorch's word-level example")
    parser.add_argument("--optimizer", default="muon", help="the optimizer of our step: muon or adamw")
    options = parser.parse_args()
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    rate = matrix_rate(device, precision.dtype)
    print(f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"one large product in {precision.value}: {rate / 1e9:,.0f} GFLOP/s")
    if options.text:
        words(Path(options.text), device, precision, options.optimizer)
    else:
        cells(device, precision, rate, options.optimizer)
    return 0


def cells(device: torch.device, precision: Precision, rate: float, optimizer: str) -> None:
    columns = ("cell", "layers", "window", "tokens/s", "matrix rate", "plain loop", "ratio")
    formats = "{:5} {:9} {:8} {:>9} {:>11} {:>13} {:>6}"
    print(formats.format(*columns) + ("  kernels" if device.type == "cuda" else ""))
    for cell in CELLS:
        for hidden, batch, bptt in SIZES:
            batch_of_tokens = random_windows(batch, bptt, VOCABULARY, device)
            config = RunConfig.from_flat(
                {"cell": cell, "hidden_size": hidden, "lr": 1e-3, "optimizer": optimizer}
            )
            ours = our_step(config, VOCABULARY, batch_of_tokens, device, precision)
            plain = plain_step(cell, hidden, batch_of_tokens, device)
            seconds, slow = alternate([ours, plain], device)
            gates = len(CELLS[cell].gates)
            work = 3 * 2 * batch * bptt * (2 * 2 * gates * hidden**2 + hidden * VOCABULARY)
            line = formats.format(
                cell,
                f"2 x {hidden}",
                f"{batch} x {bptt}",
                f"{batch * bptt / seconds:,.0f}",
                f"{work / seconds / rate:.0%}",
                f"{batch * bptt / slow:,.0f}",
                f"{slow / seconds:.2f}",
            )
            print(line + (f" {kernel_share(ours):8.0%}" if device.type == "cuda" else ""), flush=True)


def words(path: Path, device: torch.device, precision: Precision, optimizer: str) -> None:
    """Compare PyTorch's word-level example (LSTM 2 x 650, tied, batch 20 x 35, float32, SGD, clipping at
    0.25) with our step for the same network at our batch shape."""
    tokens = path.read_text(encoding="utf-8").replace("\n", " <eos> ").split()
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(tokens))}
    stream = torch.tensor([vocabulary[word] for word in tokens])

    def window(batch: int, bptt: int) -> torch.Tensor:
        return stream[: batch * (bptt + 1)].view(batch, bptt + 1).to(device)

    config = RunConfig.from_flat({"hidden_size": 650, "tie": True, "lr": 1e-3, "optimizer": optimizer})
    size, bptt = config.training.batch_size, config.training.bptt
    ours = our_step(config, len(vocabulary), window(size, bptt), device, precision)
    example = plain_step("lstm", 650, window(20, 35), device, vocab=len(vocabulary), example=True)
    seconds, slow = alternate([ours, example], device)
    print(f"ours ({size} x {bptt}): {size * bptt / seconds:,.0f} tokens/s")
    print(f"PyTorch's example (20 x 35): {20 * 35 / slow:,.0f} tokens/s")
    print(f"ratio {size * bptt / seconds / (20 * 35 / slow):.2f}")


def random_windows(batch: int, bptt: int, vocab: int, device: torch.device) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, bptt + 1), device=device)


def our_step(
    config: RunConfig, vocab: int, tokens: torch.Tensor, device: torch.device, precision: Precision
) -> Callable[[], None]:
    """One step of lm/training/loop.py."""
    network = RecurrentLM(config.model, vocab).to(device)
    optimizer = make_optimizer(network, ResolvedConfig.of(config).training, precision)
    state = None

    def step() -> None:
        nonlocal state
        with autocast(device, precision):
            loss, penalty, state = network.loss(tokens[:, :-1], tokens[:, 1:], state)
        optimizer.zero_grad()
        (loss + penalty).backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.training.clip)
        optimizer.step()
        state = tuple(part.detach() for part in state)

    return step


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
        optimizer.zero_grad()
        logits, state = network(tokens[:, :-1], state)
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.25)
        optimizer.step()
        state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()

    return step


def alternate(steps: list[Callable[[], None]], device: torch.device) -> list[float]:
    """The median duration (seconds) of each step, measured alternately."""
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(REPEATS + 1):
        for step, seconds in zip(steps, times, strict=True):
            begin, count = time.perf_counter(), 0
            while time.perf_counter() - begin < SECONDS:
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


def kernel_share(step: Callable[[], None], count: int = 20) -> float:
    """The share of the wall time of `count` steps in which the GPU runs a kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begin
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / wall


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
