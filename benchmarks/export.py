#!/usr/bin/env python
"""What `lm export` writes, run by onnxruntime: size, loss and speed, compared with lm.

python benchmarks/export.py runs/hamlet runs/gru --text hamlet.txt

The loss is that of the end of the text. The speed is that of one text: a token in, logits out, no sampling.
Both programs use the same number of threads and alternate in one process; medians are printed.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lm
from lm.export import export
from lm.generation.decoder import NetworkDecoder

REPEATS = 9
STEPS = 500  # in one measurement
WINDOW = 256  # tokens per call when a text is scored


class Runtime:
    """An exported model and its state, for one text."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options)
        parts = self.session.get_inputs()[1:]
        self.state = {p.name: np.zeros([p.shape[0], 1, p.shape[2]], np.float32) for p in parts}

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (length,) -> logits (length, vocab)."""
        logits, *state = self.session.run(None, {"tokens": tokens[None], **self.state})
        self.state = dict(zip(self.state, state, strict=True))
        return logits[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a run or a model folder")
    parser.add_argument("--text", required=True, help="a file to measure the loss on")
    parser.add_argument("--characters", type=int, default=100_000, help="number of characters at its end")
    options = parser.parse_args()
    text = Path(options.text).read_text(encoding="utf-8")[-options.characters :]
    print(f"{'':30}{'MB':>8}{'bits/character':>16}{'onnxruntime':>14}{'lm':>10}{'ratio':>8}")
    for name in options.models:
        compare(name, text)
    return 0


def compare(name: str, text: str) -> None:
    model, files, contenders = lm.load(name, "cpu"), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "int8"):
            files[precision] = Path(folder) / f"{precision}.onnx"
            export(model, files[precision], precision)
            contenders["onnxruntime", precision] = stepping_onnxruntime(Runtime(files[precision]))
            contenders["lm", precision] = stepping_lm(model, precision)
        rate = speeds(contenders)
        for precision, path in files.items():
            theirs, ours = rate["onnxruntime", precision], rate["lm", precision]
            print(f"{Path(name).name + ', ' + precision:30}{path.stat().st_size / 1e6:>8.2f}", end="")
            print(f"{bits_per_character(Runtime(path), model, text):>16.4f}", end="")
            print(f"{theirs:>12,.0f}/s{ours:>8,.0f}/s{theirs / ours:>8.2f}")


def bits_per_character(runtime: Runtime, model: lm.LanguageModel, text: str) -> float:
    tokens = np.array([model.start_token, *model.direction.reorder(model.encode(text))], np.int64)
    nats = 0.0
    for begin in range(0, len(tokens) - 1, WINDOW):
        targets = torch.from_numpy(tokens[begin + 1 : begin + 1 + WINDOW])
        logits = torch.from_numpy(runtime.read(tokens[begin : begin + len(targets)]))
        nats += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    return nats / math.log(2) / len(text)


def stepping_onnxruntime(runtime: Runtime) -> Callable[[], object]:
    token = np.ones(1, np.int64)
    return lambda: runtime.read(token)


def stepping_lm(model: lm.LanguageModel, precision: str) -> Callable[[], object]:
    decoder = NetworkDecoder(model.network, precision)
    batch, token = decoder.batch(), torch.ones(1, dtype=torch.int64)
    batch.add(decoder.initial_state())
    return lambda: batch.step(token)


def speeds(contenders: dict[tuple[str, str], Callable[[], object]]) -> dict[tuple[str, str], float]:
    """The median number of calls per second of each contender."""
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for step in contenders.values():
        for _ in range(50):
            step()
    for _ in range(REPEATS):
        for key, step in contenders.items():
            begin = time.perf_counter()
            for _ in range(STEPS):
                step()
            rates[key].append(STEPS / (time.perf_counter() - begin))
    return {key: statistics.median(values) for key, values in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
