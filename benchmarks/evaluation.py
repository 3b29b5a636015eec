#!/usr/bin/env python
"""How long `lm evaluate` takes, intervals included, compared with the matrix products that it needs.

    python benchmarks/evaluation.py tinyshakespeare.txt
    python benchmarks/evaluation.py tinyshakespeare.txt --cell gru --layers 2 --units 256

The text is repeated or cut to --characters, and scored with random weights. "Products" are the bare products
of the scored tokens in the precision of the evaluation, each thread by itself: of the hidden states of 96
streams with the recurrent weights, step by step, and of blocks of tokens with the weights of the decoder and
of all layers but the first, whose input is looked up. They are measured before and after each evaluation on a
part of the tokens and scaled to all; the ratio is that of an evaluation to the mean of both. "One large
product" is the time for as many operations at the rate of a product of large matrices.

The machine should be idle. The load average is printed, so that numbers of a busy machine can be recognized.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.training import matrix_rate
from lm.config.schema import ModelConfig
from lm.insight.surprisal import score_text
from lm.language_model import LanguageModel
from lm.model.cells import CELLS
from lm.model.device import choose_device, choose_precision
from lm.model.network import RecurrentLM
from lm.model.onednn import linear
from lm.tokenization.vocabulary import train_tokenizer
from lm.training.auto import embedding_size

ROOT = Path(__file__).resolve().parent.parent
ROWS = 96  # streams per thread, of the 192 of two threads
STEPS = 1024  # of a measurement of the products
WINDOW = 128  # steps whose logits are computed together


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("text", type=Path, help="a text file, such as Tiny Shakespeare (not in this repository)")
    add("--characters", type=int, default=3_300_000, metavar="N", help="default: 3300000")
    add("--cell", choices=CELLS, default="lstm")
    add("--layers", type=int, default=1, metavar="N")
    add("--units", type=int, default=512, metavar="N")
    add("--precision", default="auto", help="as for lm evaluate (default: auto)")
    add("--repeats", type=int, default=3, metavar="N", help="evaluations, whose medians are printed")
    options = parser.parse_args()
    if choose_device("auto").type != "cpu":
        print("error: this measures a CPU; hide the GPU with CUDA_VISIBLE_DEVICES=''.", file=sys.stderr)
        return 2
    text = options.text.read_text(encoding="utf-8")
    text = (text * (options.characters // len(text) + 1))[: options.characters]
    precision = choose_precision(options.precision, torch.device("cpu"))
    load, threads = os.getloadavg()[0], torch.get_num_threads()
    print(f"{threads} threads, torch {torch.__version__}, {precision.value}, load average {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(text, options, Path(folder))
        compare(model, text, options, Path(folder))
    return 0


def save_model(text: str, options: argparse.Namespace, folder: Path) -> LanguageModel:
    """A model with random weights and the text, in a folder."""
    tokenizer = train_tokenizer("char", iter([text]), None)
    config = ModelConfig(
        cell=options.cell,
        layers=options.layers,
        hidden_size=options.units,
        embedding_size=embedding_size(tokenizer.vocab_size),
    )
    model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)
    model.save(folder / "model")
    (folder / "text.txt").write_text(text, encoding="utf-8", newline="")
    return model


def compare(model: LanguageModel, text: str, options: argparse.Namespace, folder: Path) -> None:
    """Measure and print the table."""
    command = [sys.executable, "-m", "lm", "evaluate", folder / "model", "--dataset", folder / "text.txt"]
    command += ["--precision", options.precision, "--device", "cpu", "--json"]
    precision = choose_precision(options.precision, torch.device("cpu"))
    products(model, precision.dtype, len(text))  # warms up
    bare, scored = [products(model, precision.dtype, len(text))], []
    whole, scoring, metrics = [], [], []
    for _ in range(options.repeats):
        whole.append(seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)))
        bare.append(products(model, precision.dtype, len(text)))
        scoring.append(seconds(lambda: scored.append(score_text(model, text, precision=precision))))
        metrics.append(seconds(lambda: scored.pop().metrics))
    ratios = [total / statistics.mean(around) for total, *around in zip(whole, bare, bare[1:], strict=False)]
    operations = 2 * sum(rows * columns for rows, columns in shapes(model)) * len(text)
    large = operations / matrix_rate(torch.device("cpu"), precision.dtype)
    network = f"{options.cell.upper()}, {options.layers} × {options.units}"
    print(f"\n| {len(text):,} characters, {network} | seconds |")
    print("|---|---|")
    for name, values in (
        ("`lm evaluate`", whole),
        ("tokenizing and scoring", scoring),
        ("metrics and intervals", metrics),
        ("products", bare),
        ("one large product", [large]),
    ):
        print(f"| {name} | {statistics.median(values):.2f} |")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"\n`lm evaluate` / products: {statistics.median(ratios):.2f} ({spread})")
    print(f"`lm evaluate` / one large product: {statistics.median(whole) / large:.2f}")


def shapes(model: LanguageModel) -> list[tuple[int, int]]:
    """The shapes of the weights of each token's products, those with hidden states first."""
    config = model.network.config
    layer = (len(CELLS[config.cell].gates) * config.hidden_size, config.hidden_size)
    return [*[layer] * (2 * config.layers - 1), (model.tokenizer.vocab_size, config.hidden_size)]


def products(model: LanguageModel, dtype: torch.dtype, tokens: int) -> float:
    """The seconds that the bare products of this many tokens take."""
    layers, threads = model.network.config.layers, torch.get_num_threads()
    linears = [linear(torch.randn(*shape).to(dtype), None, ROWS) for shape in shapes(model)]
    hidden = torch.randn(ROWS, model.network.config.hidden_size).to(dtype)

    def one_thread(_: int) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            for _ in range(STEPS):
                for of_hidden in linears[:layers]:
                    of_hidden(hidden)
            for _ in range(STEPS // WINDOW):
                for of_block in linears[layers:]:
                    of_block(hidden.repeat(WINDOW, 1))

    with ThreadPoolExecutor(threads) as pool:
        elapsed = seconds(lambda: list(pool.map(one_thread, range(threads))))
    torch.set_num_threads(threads)
    return elapsed * tokens / (threads * ROWS * STEPS)


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
