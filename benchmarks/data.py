#!/usr/bin/env python
"""How fast, and in how much memory, a text becomes a token stream.

    python benchmarks/data.py 'linux-source-6.1/**/*.[chS]'

The text is any --dataset; one of more than a gigabyte shows whether memory stays constant (Debian's package
linux-source is a good one). Each row is measured in a process of its own with an empty cache. The comparison
with `encode_batch` alternates both in one process, on documents of the same text.
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

import torch  # noqa: F401  (train.py has it in memory, too)

from lm.config.schema import DataConfig
from lm.data.corpus import open_corpus, write_tokens
from lm.data.progress import no_progress
from lm.data.sources import find_source
from lm.data.text import write_text
from lm.tokenization.documents import SEPARATOR, chunks
from lm.tokenization.vocabulary import train_tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a file, a folder, a glob, ...")
    parser.add_argument("--tokenizer", nargs="+", default=["char", "byte", "bpe"], metavar="T")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-megabytes", type=int, default=32, help="amount of text to compare bpe on")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # one measurement, in this process
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.dataset, *options.measure)))
        return 0
    print("| tokens | text | built in | speed | peak RssAnon | opened again in |\n|---|---|---|---|---|---|")
    for kind in options.tokenizer:
        rows = [
            measure_in_process(options.dataset, kind) for _ in range(options.repeats if kind != "bpe" else 1)
        ]
        size, seconds, memory, again = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"| {kind} | {size:,.0f} MB | {seconds:.1f} s | {size / seconds:,.1f} MB/s | {memory:,.0f} MB"
            f" | {again:.2f} s |",
            flush=True,
        )
    compare(options.dataset, options.peer_megabytes * 1_000_000, options.repeats)
    return 0


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


def anonymous_memory() -> float:
    """Megabytes of this process's memory that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
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
