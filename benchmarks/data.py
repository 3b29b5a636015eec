#!/usr/bin/env python
"""How fast, and in how much memory, a text becomes a token stream, and the memory that vocabularies take.

    python benchmarks/data.py 'linux-source-6.1/**/*.[chS]'
    python benchmarks/data.py --types 65 10000 65536 100000

The text is any --dataset; one of more than a gigabyte shows whether memory stays constant (Debian's package
linux-source is a good one). Each row is measured in a process of its own with an empty cache. The comparison
with `encode_batch` alternates both in one process, on documents of the same text.

With --types, a text of that many distinct words, with frequencies after Zipf, is trained on for a few steps
with a validation, and scored; each in a process of its own, whose peak memory is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (train.py has it in memory, too)

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.corpus import open_corpus, write_tokens
from lm.data.find_source import find_source
from lm.data.text import write_text
from lm.tokenization.documents import SEPARATOR, chunks
from lm.tokenization.vocabulary import train_tokenizer

_TRAIN = ["train", "--dataset", "text.txt", "--tokenizer", "word", "--vocab-size", "1000000", "--steps", "1"]
_TRAIN += ["--out", "run", "--overwrite", "--quiet"]
_SCORE = ["evaluate", "run", "--dataset"]
# What is measured, and its command.
COMMANDS = {
    "training": _TRAIN,
    "training, `--preset words`": [*_TRAIN, "--preset", "words", "--out", "words"],
    "`lm evaluate`": [*_SCORE, "long.txt"],
    "`--dynamic`": [*_SCORE, "short.txt", "--dynamic"],
    "`--cache`": [*_SCORE, "short.txt", "--cache"],
    "`--per-token`": [*_SCORE, "long.txt", "--per-token", "tokens.tsv"],
    "`--per-word`": [*_SCORE, "long.txt", "--per-word", "words.tsv"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", help="a file, a folder, a glob, ...")
    parser.add_argument("--types", nargs="+", type=int, metavar="N", help="sizes of vocabularies")
    parser.add_argument("--tokenizer", nargs="+", default=["char", "byte", "bpe"], metavar="T")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-megabytes", type=int, default=32, help="amount of text to compare bpe on")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # one measurement, in this process
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.dataset, *options.measure)))
        return 0
    if options.types:
        compare_vocabularies(options.types)
    if options.dataset:
        compare_tokenizers(options.dataset, options)
    return 0


def compare_tokenizers(dataset: str, options: argparse.Namespace) -> None:
    """A row for each tokenizer, and `compare`."""
    print("| tokens | text | built in | speed | peak RssAnon | opened again in |\n|---|---|---|---|---|---|")
    for kind in options.tokenizer:
        rows = [measure_in_process(dataset, kind) for _ in range(options.repeats if kind != "bpe" else 1)]
        size, seconds, memory, again = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"| {kind} | {size:,.0f} MB | {seconds:.1f} s | {size / seconds:,.1f} MB/s | {memory:,.0f} MB"
            f" | {again:.2f} s |",
            flush=True,
        )
    compare(dataset, options.peer_megabytes * 1_000_000, options.repeats)


def compare_vocabularies(sizes: list[int]) -> None:
    """The peak memory of training and scoring for each vocabulary size."""
    print("| types |", " | ".join(COMMANDS), "|\n|" + "---|" * (len(COMMANDS) + 1))
    for types in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_words(Path(folder) / "text.txt", types)
            peaks = [peak_memory(command, folder) for command in COMMANDS.values()]
        print(f"| {types:,} |", " | ".join(f"{peak:,.0f} MB" for peak in peaks), "|", flush=True)


def write_words(path: Path, types: int, count: int = 200_000) -> None:
    """A text of `count` random words, all of `types` - 2 distinct ones at its beginning (<unk> and <eos> are
    the others), and next to it a short text of the same words."""
    words = types - 2
    draw = np.random.default_rng(0)
    share = 1 / np.arange(1, words + 1)
    ids = np.concatenate([draw.permutation(words), draw.choice(words, count, p=share / share.sum())])
    lines = [" ".join(f"w{i:x}" for i in ids[at : at + 12].tolist()) + "\n" for at in range(0, len(ids), 12)]
    texts = {path.name: lines, "long.txt": lines[-1700:], "short.txt": lines[-100:]}
    for name, part in texts.items():
        path.with_name(name).write_bytes("".join(part).encode())


def peak_memory(arguments: list[str], folder: str) -> float:
    """The peak megabytes of RssAnon of an `lm` command."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "LM_CACHE": f"{folder}/cache", "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-m", "lm", *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, anonymous_memory(process.pid))
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"lm {' '.join(arguments)} failed")
    return peak


def measure_in_process(dataset: str, kind: str) -> list[float]:
    """`measure` in a new process with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LM_CACHE")) as cache:
        command = [sys.executable, __file__, dataset, "--measure", kind, cache]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=os.getcwd())
        return json.loads(result.stdout)


def measure(dataset: str, kind: str, cache: str) -> list[float]:
    """The megabytes of text, the seconds to build the stream, the peak megabytes of RssAnon, and the seconds
    to open the stream again."""
    os.environ["LM_CACHE"] = cache
    config = DataConfig(dataset=(dataset,), tokenizer=kind, encoding_errors="replace")
    peak, done = 0.0, threading.Event()

    def watch_memory() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_memory())

    thread = threading.Thread(target=watch_memory)
    thread.start()
    start = time.perf_counter()
    corpus = open_corpus(config)
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    start = time.perf_counter()
    open_corpus(config)
    again = time.perf_counter() - start
    size = corpus.train.counts.bytes + corpus.validation.counts.bytes
    return [size / 1e6, seconds, peak, again]


def anonymous_memory(process: int | str = "self") -> float:
    """Megabytes of a process's memory that no file backs."""
    for line in Path(f"/proc/{process}/status").read_text("utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    return 0.0


def compare(dataset: str, size: int, repeats: int) -> None:
    """bpe with `tokenizers.encode_batch` on whole documents, and with the token stream's own encoder."""
    config = DataConfig(dataset=(dataset,), encoding_errors="replace")
    source = find_source(dataset, config).fetched("train", no_progress)
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder) / "text", source.read("train"), size)
        documents = [d.decode() for d in text.path.read_bytes().split(SEPARATOR)]
        tokenizer = train_tokenizer("bpe", (c.decode() for d in documents for c in chunks(d.encode())))

        def peer() -> None:
            encodings = tokenizer.backend.encode_batch(documents, add_special_tokens=False)
            [encoding.ids for encoding in encodings]

        def ours() -> None:
            write_tokens(Path(folder) / "tokens", [text], tokenizer, no_progress)

        speeds: dict[Callable[[], None], list[float]] = {peer: [], ours: []}
        for _ in range(repeats):
            for encode, measured in speeds.items():
                start = time.perf_counter()
                encode()
                measured.append(len(text) / 1e6 / (time.perf_counter() - start))
    slow, fast = (statistics.median(measured) for measured in speeds.values())
    print(f"\nbpe on {len(text) / 1e6:,.0f} MB in {len(documents):,} documents:")
    print("| tokenizers.encode_batch | the token stream | ratio |\n|---|---|---|")
    print(f"| {slow:.1f} MB/s | {fast:.1f} MB/s | {fast / slow:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
