#!/usr/bin/env python
"""Generation speed, compared with a plain loop over nn.LSTM and with the memory bandwidth.

python benchmarks/generation.py                                  an untrained network of 2 x 512 units
python benchmarks/generation.py runs/hamlet --text hamlet.txt    a model, and what lower precision costs it

The plain loop calls torch's own layer and a linear decoder once per token and samples with torch.multinomial.
All contenders alternate in one process; medians are printed. The share of bandwidth is the time to read all
weights once per token, at the rate at which a large vector is summed in the same run, divided by the measured
time; where the weights fit the caches it can exceed 100%. On a GPU, the share of the time in which kernels
are active and the number of kernels per step are printed too. With --text, the loss on the end of that text
is printed for each precision, computed by decoding steps.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lm
from benchmarks.kernels import kernels_of
from lm.config.schema import ModelConfig, SamplingConfig
from lm.generation.decoder import NetworkDecoder
from lm.generation.samplers import SamplingTensors, apply_penalties, sample
from lm.generation.scheduler import Scheduler
from lm.model.network import RecurrentLM

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5
TOKENS = 400  # per stream in one measurement
VOCAB_SIZE = 65
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
PLAIN = SamplingConfig()
ALL_FILTERS = SamplingConfig(
    temperature=0.9,
    top_k=100,
    top_p=0.95,
    min_p=0.01,
    typical_p=0.97,
    repetition_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    no_repeat_ngram=8,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a run or a model folder (default: an untrained network)")
    parser.add_argument("--cell", default="lstm", help="cell of the untrained network")
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text", help="a file to measure the loss on")
    parser.add_argument("--characters", type=int, default=100_000, help="number of characters at its end")
    options = parser.parse_args()
    if options.model:
        network = lm.load(options.model, options.device).network
    else:
        config = ModelConfig(cell=options.cell, hidden_size=options.hidden_size, layers=options.layers)
        network = RecurrentLM(config, VOCAB_SIZE).eval()
        network = network.cuda() if options.device != "cpu" and torch.cuda.is_available() else network
    device = network.embedding.weight.device
    precisions = ("fp32", "bf16", "int8") if device.type == "cpu" else ("fp32", "bf16")
    bandwidth = memory_bandwidth(device)
    shape = f"{network.config.cell} {network.config.layers} x {network.config.hidden_size}"
    print(f"{shape}, {network.vocab_size} tokens, {device.type}; memory: {bandwidth / 1e9:.0f} GB/s")
    speeds(network, precisions, bandwidth)
    first_token(network)
    if device.type == "cuda":
        samplers_on_gpu(network, precisions)
    else:
        samplers(network)
    if options.text:
        losses(options, precisions)
    if device.type == "cpu":
        first_character()
    return 0


def speeds(network: RecurrentLM, precisions: tuple[str, ...], bandwidth: float) -> None:
    """Tokens per second of one stream and of many."""
    on_gpu = network.embedding.weight.device.type == "cuda"
    counts = (1, 32, 256) if on_gpu else (1, 32)
    contenders = {"plain loop": {n: plain_loop(network, n) for n in counts}}
    for precision in precisions:
        scheduler = Scheduler(NetworkDecoder(network, precision), network.vocab_size)
        contenders[precision] = {n: streaming(scheduler, n) for n in counts}
    rates: dict[tuple[str, int], list[float]] = {}
    for generate in (one for each in contenders.values() for one in each.values()):
        generate(20)
    for _ in range(REPEATS):
        for name, each in contenders.items():
            for count, generate in each.items():
                tokens = TOKENS if count == 1 or on_gpu else TOKENS // 4
                begin = time.perf_counter()
                generate(tokens)
                rates.setdefault((name, count), []).append(count * tokens / (time.perf_counter() - begin))
    weights = sum(p.numel() for p in network.parameters()) - network.embedding.weight.numel()
    rate = {key: statistics.median(values) for key, values in rates.items()}
    print(f"\n{'bandwidth':>25}", *(f"{streams(n):>14}{'ratio':>8}" for n in counts), sep="")
    for name in contenders:
        share = f"{rate[name, 1] * weights * BYTES[name] / bandwidth:.0%}" if name in BYTES else ""
        print(f"{name:14}{share:>11}", end="")
        for n in counts:
            print(f"{rate[name, n]:>12,.0f}/s{rate[name, n] / rate['plain loop', n]:>8.1f}", end="")
        print()
    if on_gpu:
        print(f"\n{'':14}", *(f"{streams(n) + ': active':>22}{'kernels':>9}" for n in counts), sep="")
        for name, each in contenders.items():
            print(f"{name:14}", end="")
            for generate in each.values():
                active, kernels = kernels_of(partial(generate, TOKENS), 1)
                print(f"{active:>22.0%}{kernels / TOKENS:>9.0f}", end="")
            print()


def streams(count: int) -> str:
    return "one stream" if count == 1 else f"{count} streams"


def plain_loop(network: RecurrentLM, rows: int) -> Callable[[int], None]:
    """Generation as a tutorial writes it, at the same shape."""
    config, device = network.config, network.embedding.weight.device
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
    layer = kind(config.embedding_size, config.hidden_size, config.layers).to(device).eval()
    decoder = nn.Linear(config.hidden_size, network.vocab_size).to(device)
    embedding = nn.Embedding(network.vocab_size, config.embedding_size).to(device)

    @torch.inference_mode()
    def generate(tokens: int) -> None:
        state, token = None, torch.zeros(1, rows, dtype=torch.long, device=device)
        for _ in range(tokens):
            hidden, state = layer(embedding(token), state)
            logits = decoder(hidden[0]) / 0.8
            token = torch.multinomial(logits.softmax(dim=-1), 1).t()
            token.tolist()

    return generate


def streaming(scheduler: Scheduler, count: int, sampling: SamplingConfig = PLAIN) -> Callable[[int], None]:
    def generate(tokens: int) -> None:
        added = [scheduler.stream([1], sampling, seed, tokens) for seed in range(count)]
        for _ in scheduler.tokens(*added):
            pass

    return generate


def first_token(network: RecurrentLM) -> None:
    """The latency of the first token of a new stream while 31 others are generated."""
    scheduler = Scheduler(NetworkDecoder(network), network.vocab_size)
    others = [scheduler.stream([1], SamplingConfig(), seed, 10**9) for seed in range(31)]
    generating = scheduler.tokens(*others)

    def generate() -> None:
        for _ in generating:
            pass

    thread = threading.Thread(target=generate)
    thread.start()
    latencies, prompt = [], [1] * 50
    for seed in range(40):
        time.sleep(0.02)
        begin = time.perf_counter()
        tokens = scheduler.tokens(scheduler.stream(prompt, SamplingConfig(), seed, 100))
        next(tokens)
        latencies.append(time.perf_counter() - begin)
        tokens.close()
    for stream in others:
        stream.ended = True
    thread.join()
    latencies.sort()
    print(
        f"\nfirst token after a prompt of {len(prompt)} tokens, while 31 streams are running:"
        f" {1e3 * statistics.median(latencies):.0f} ms (95%: {1e3 * latencies[-2]:.0f} ms)"
    )


def samplers(network: RecurrentLM) -> None:
    """The cost of sampling without and with all filters, for this and for a large vocabulary."""
    config, device = network.config, network.embedding.weight.device
    print(f"\n{'sampling, one stream':24}{'step':>12}{'plain':>12}{'all filters':>14}{'share of a step':>18}")
    for size in (network.vocab_size, 10_000):
        sized = network if size == network.vocab_size else RecurrentLM(config, size).eval().to(device)
        decoder = NetworkDecoder(sized)
        batch = decoder.batch()
        batch.add(decoder.initial_state())
        token = torch.zeros(1, dtype=torch.long, device=device)
        step = median_time(lambda batch=batch, token=token: batch.step(token))
        plain, filtered = (sampling_time(batch.step(token), s) for s in (PLAIN, ALL_FILTERS))
        share = filtered / (filtered + step)
        print(f"{size:>10,} tokens{'':7}{step * 1e6:>9.0f} µs{plain * 1e6:>9.0f} µs", end="")
        print(f"{filtered * 1e6:>11.0f} µs{share:>18.0%}")


def samplers_on_gpu(network: RecurrentLM, precisions: tuple[str, ...]) -> None:
    """What samplers add to a step, for this and for a large vocabulary. Every step computes a block of rows,
    whose number therefore does not matter."""
    kinds = {
        "top-k": {"top_k": 100},
        "top-p": {"top_p": 0.95},
        "min-p": {"min_p": 0.01},
        "typical": {"typical_p": 0.97},
        "penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1},
    }
    kinds["all"] = {name: value for kind in kinds.values() for name, value in kind.items()}
    print(f"\n{'samplers, one stream':24}{'plain step':>14}", *(f"{kind:>12}" for kind in kinds), sep="")
    for size in (network.vocab_size, 10_000):
        sized = network if size == network.vocab_size else RecurrentLM(network.config, size).eval()
        sized = sized.to(network.embedding.weight.device)
        for precision in precisions:
            scheduler = Scheduler(NetworkDecoder(sized, precision), size)
            plain, *others = (
                median_time(partial(streaming(scheduler, 1, sampling), TOKENS), 1) / TOKENS
                for sampling in (PLAIN, *(SamplingConfig(**kind) for kind in kinds.values()))
            )
            print(f"{size:>10,} tokens, {precision:5}{plain * 1e6:>11.0f} µs", end="")
            print(*(f"{time / plain - 1:>+12.0%}" for time in others), sep="")


def sampling_time(logits: torch.Tensor, config: SamplingConfig) -> float:
    sampling = SamplingTensors.stack([config], logits.shape[1], logits.device)
    counts = torch.zeros_like(logits)
    counts[:, :50] = 1
    uniform = torch.full((1,), 0.5, dtype=torch.float64, device=logits.device)

    @torch.inference_mode()
    def once() -> None:
        sample(apply_penalties(logits, counts, sampling), uniform, sampling).tolist()

    return median_time(once)


def losses(options: argparse.Namespace, precisions: tuple[str, ...]) -> None:
    """Nats per token of a text, computed by decoding steps of many streams."""
    model = lm.load(options.model, options.device)
    text = Path(options.text).read_text("utf-8")[-options.characters :]
    tokens = torch.tensor(model.encode(text), device=model.device)
    rows = 64
    tokens = tokens[: len(tokens) // rows * rows].view(rows, -1)
    print(f"\nloss on the last {len(text):,} characters of {options.text}, in {rows} streams")
    exact = 0.0
    for precision in precisions:
        decoder = NetworkDecoder(model.network, precision)
        batch, total = decoder.batch(), 0.0
        for _ in range(rows):
            batch.add(decoder.initial_state())
        for inputs, targets in zip(tokens.t()[:-1], tokens.t()[1:], strict=True):
            logprobs = batch.step(inputs.contiguous()).log_softmax(dim=-1)
            total -= logprobs.gather(1, targets[:, None]).double().sum().item()
        loss = total / (tokens.numel() - rows)
        exact = loss if precision == "fp32" else exact
        print(f"{precision:6} {loss:.5f} nats per token  {loss / exact - 1:+.3%}")


def first_character() -> None:
    """The time from the command to the first character, compared with importing torch."""
    model = str(ROOT / "lm" / "pretrained")
    torch_times, our_times = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            torch_times.append(wall_time([sys.executable, "-c", "import torch"], folder))
            command = [sys.executable, str(ROOT / "generate.py"), model, "--length", "1"]
            our_times.append(wall_time(command, folder))
    total, importing = statistics.median(our_times), statistics.median(torch_times)
    print(f"\nfirst character of generate.py: {total:.2f} s, {total - importing:.2f} s after import torch")


def wall_time(command: list[str], folder: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def memory_bandwidth(device: torch.device) -> float:
    """Bytes per second at which a vector larger than any cache is read."""
    large = torch.ones(2**28 // 4, device=device)
    return large.numel() * 4 / median_time(lambda: large.sum().item(), 5)


def median_time(once: Callable[[], object], number: int = 200) -> float:
    """Seconds per call of `once`."""
    for _ in range(3):
        once()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for _ in range(number):
            once()
        times.append((time.perf_counter() - begin) / number)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
