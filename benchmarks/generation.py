#!/usr/bin/env python
"""How fast text is written: against the obvious loop over nn.LSTM and against the machine's memory.

python benchmarks/generation.py                              a network of 2 x 512 units, untrained
python benchmarks/generation.py runs/hamlet --text hamlet.txt    a model, and what fewer bits cost it

The obvious loop calls torch's own layer and a linear decoder once for each token and draws by
torch.multinomial, in the same process; all alternate, and medians are printed. The share of memory is what
reading all weights once a token would take at the rate at which large vectors are summed, measured in the
same run (below the size of the caches a step can be faster than memory). With --text the loss on a part of
that text, each token fed through the decoder's own step, is told for each precision.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lm
from lm.config.schema import ModelConfig, SamplingConfig
from lm.generation.decoder import NetworkDecoder
from lm.generation.samplers import SamplingTensors, apply_penalties, sample
from lm.generation.scheduler import Scheduler
from lm.model.network import RecurrentLM

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5
TOKENS = 400  # that one stream writes in a measurement
VOCABULARY = 65
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
ALL_FILTERS = SamplingConfig(
    temperature=0.9, top_k=100, top_p=0.95, min_p=0.01, typical_p=0.97, repetition_penalty=1.1,
    presence_penalty=0.1, frequency_penalty=0.1, no_repeat_ngram=8,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a run or a model folder; default: an untrained network")
    parser.add_argument("--cell", default="lstm", help="of the untrained network")
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text", help="a text to measure the loss on")
    parser.add_argument("--characters", type=int, default=100_000, help="of its end")
    options = parser.parse_args()
    if options.model:
        network = lm.load(options.model, options.device).network
    else:
        shape = {"cell": options.cell, "hidden_size": options.hidden_size, "layers": options.layers}
        network = RecurrentLM(ModelConfig(**shape), VOCABULARY).eval()
        network = network.cuda() if options.device != "cpu" and torch.cuda.is_available() else network
    where = network.embedding.weight.device.type
    precisions = ("fp32", "bf16", "int8") if where == "cpu" else ("fp32", "bf16")
    rate = memory_rate(network.embedding.weight.device)
    config = network.config
    print(
        f"{config.cell} {config.layers} x {config.hidden_size}, {network.vocab_size} types, {where};", end=" "
    )
    print(f"memory: {rate / 1e9:.0f} GB/s")
    speeds(network, precisions, rate)
    arrival(network)
    samplers(network)
    if options.text:
        losses(options, precisions)
    if where == "cpu":
        first_character()
    return 0


def speeds(network: RecurrentLM, precisions: tuple[str, ...], rate: float) -> None:
    contenders = {"obvious loop": {n: obvious_loop(network, n) for n in (1, 32)}}
    for precision in precisions:
        streams = Scheduler(NetworkDecoder(network, precision), network.vocab_size)
        contenders[precision] = {n: writing(streams, n) for n in (1, 32)}
    found: dict[tuple[str, int], list[float]] = {}
    for write in (w for each in contenders.values() for w in each.values()):
        write(20)
    for _ in range(REPEATS):
        for name, each in contenders.items():
            for count, write in each.items():
                begin = time.perf_counter()
                write(TOKENS if count == 1 else TOKENS // 4)
                made = count * (TOKENS if count == 1 else TOKENS // 4)
                found.setdefault((name, count), []).append(made / (time.perf_counter() - begin))
    read = sum(p.numel() for p in network.parameters()) - network.embedding.weight.numel()
    speed = {key: statistics.median(values) for key, values in found.items()}
    print(f"\n{'':14}{'one stream':>14}{'ratio':>8}{'of memory':>11}{'32 streams':>14}{'ratio':>8}")
    for name in contenders:
        of_memory = f"{speed[name, 1] * read * BYTES[name] / rate:.0%}" if name in BYTES else ""
        ratios = {n: speed[name, n] / speed["obvious loop", n] for n in (1, 32)}
        print(f"{name:14}{speed[name, 1]:>12,.0f}/s{ratios[1]:>8.1f}{of_memory:>11}", end="")
        print(f"{speed[name, 32]:>12,.0f}/s{ratios[32]:>8.1f}")


def obvious_loop(network: RecurrentLM, rows: int) -> Callable[[int], None]:
    config, device = network.config, network.embedding.weight.device
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
    layer = kind(config.embedding_size, config.hidden_size, config.layers).to(device).eval()
    decoder = nn.Linear(config.hidden_size, network.vocab_size).to(device)
    embedding = nn.Embedding(network.vocab_size, config.embedding_size).to(device)

    @torch.inference_mode()
    def write(tokens: int) -> None:
        state, token = None, torch.zeros(1, rows, dtype=torch.long, device=device)
        for _ in range(tokens):
            hidden, state = layer(embedding(token), state)
            logits = decoder(hidden[0]) / 0.8
            token = torch.multinomial(logits.softmax(dim=-1), 1).t()
            token.tolist()

    return write


def writing(streams: Scheduler, count: int) -> Callable[[int], None]:
    def write(tokens: int) -> None:
        texts = [streams.add([1], SamplingConfig(), seed, tokens) for seed in range(count)]
        for _ in streams.tokens(*texts):
            pass

    return write


def arrival(network: RecurrentLM) -> None:
    """How long a newcomer waits for its first token while 31 others write, and how long the leaving of
    one takes."""
    streams = Scheduler(NetworkDecoder(network), network.vocab_size)
    others = [streams.add([1], SamplingConfig(), seed, 10**9) for seed in range(31)]
    writing = streams.tokens(*others)

    def write() -> None:
        for _ in writing:
            pass

    thread = threading.Thread(target=write)
    thread.start()
    first, prompt = [], [1] * 50
    for seed in range(40):
        time.sleep(0.02)
        begin = time.perf_counter()
        tokens = streams.tokens(streams.add(prompt, SamplingConfig(), seed, 100))
        next(tokens)
        first.append(time.perf_counter() - begin)
        tokens.close()
    for stream in others:
        stream.ended = True
    thread.join()
    first.sort()
    print(
        f"\nfirst token of a newcomer after {len(prompt)} tokens of prompt, while 31 others write:", end=" "
    )
    print(f"{1e3 * statistics.median(first):.0f} ms (95%: {1e3 * first[-2]:.0f} ms)")


def samplers(network: RecurrentLM) -> None:
    """What choosing costs, with nothing asked for and with everything, at this and at a large vocabulary."""
    config, device = network.config, network.embedding.weight.device
    print(
        f"\n{'choosing, one stream':24}{'a step':>12}{'plain':>12}{'all filters':>14}{'share of a step':>18}"
    )
    for size in (network.vocab_size, 10_000):
        shape = network if size == network.vocab_size else RecurrentLM(config, size).eval().to(device)
        batch = NetworkDecoder(shape).batch()
        batch.add(NetworkDecoder(shape).initial_state())
        token = torch.zeros(1, dtype=torch.long, device=device)
        step = median_time(lambda batch=batch, token=token: batch.step(token))
        plain, everything = (choosing(batch.step(token), s) for s in (SamplingConfig(), ALL_FILTERS))
        share = everything / (everything + step)
        print(f"{size:>10,} types{'':8}{step * 1e6:>9.0f} µs{plain * 1e6:>9.0f} µs", end="")
        print(f"{everything * 1e6:>11.0f} µs{share:>18.0%}")


def choosing(logits: torch.Tensor, sampling: SamplingConfig) -> float:
    rules = SamplingTensors.stack([sampling], logits.shape[1], logits.device)
    counts = torch.zeros_like(logits)
    counts[:, :50] = 1
    uniform = torch.full((1,), 0.5, dtype=torch.float64, device=logits.device)

    @torch.inference_mode()
    def once() -> None:
        sample(apply_penalties(logits, counts, rules), uniform, rules).tolist()

    return median_time(once)


def losses(options: argparse.Namespace, precisions: tuple[str, ...]) -> None:
    """Nats per token of a text, read through the decoder's steps by many streams."""
    model = lm.load(options.model, options.device)
    text = Path(options.text).read_text()[-options.characters :]
    tokens = torch.tensor(model.encode(text))
    rows = 64
    tokens = tokens[: len(tokens) // rows * rows].view(rows, -1)
    print(f"\nloss on the last {len(text):,} characters of {options.text}, in {rows} streams")
    exact = 0.0
    for precision in precisions:
        decoder = NetworkDecoder(model.network, precision)
        batch, total = decoder.batch(), 0.0
        for _ in range(rows):
            batch.add(decoder.initial_state())
        for before, after in zip(tokens.t()[:-1], tokens.t()[1:], strict=True):
            logprobs = batch.step(before.contiguous()).log_softmax(dim=-1)
            total -= logprobs.gather(1, after[:, None]).double().sum().item()
        loss = total / (tokens.numel() - rows)
        exact = loss if precision == "fp32" else exact
        print(f"{precision:6} {loss:.5f} nats per token  {loss / exact - 1:+.3%}")


def first_character() -> None:
    """From the command to the first character, beside what importing torch takes."""
    model = str(ROOT / "lm" / "pretrained")
    torch_alone, ours = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            torch_alone.append(wall([sys.executable, "-c", "import torch"], folder))
            ours.append(wall([sys.executable, str(ROOT / "generate.py"), model, "--length", "1"], folder))
    alone, first = statistics.median(torch_alone), statistics.median(ours)
    print(f"\nfirst character of generate.py: {first:.2f} s, {first - alone:.2f} s after import torch")


def wall(command: list[str], folder: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def memory_rate(device: torch.device) -> float:
    """Bytes a second at which a vector larger than any cache is read."""
    large = torch.ones(2**28 // 4, device=device)
    return large.numel() * 4 / median_time(lambda: large.sum().item(), 5)


def median_time(once: Callable[[], object], number: int = 200) -> float:
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
