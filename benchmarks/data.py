#!/usr/bin/env python
"""How fast and in how much memory a text becomes a token stream.

    python benchmarks/data.py 'linux-source-6.1/**/*.[chS]'

The text is any --dataset; more than a gigabyte shows whether memory stays constant (Debian's package
linux-source is a good one). Every figure is measured in a process of its own with an empty cache;
the comparison with `encode_batch` alternates in one process, over documents of the same text.
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

from lm.config.schema import DataConfig

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a file, a folder, a glob, ...")
    parser.add_argument("--tokenizer", nargs="+", default=["char", "byte", "bpe"], metavar="T")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-megabytes", type=int, default=32, help="of text to compare bpe on")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # one measurement, in this process
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.dataset, *options.measure)))
        return 0
    print("| tokens | text | made in | of text | peak RssAnon | found again in |\n|---|---|---|---|---|---|")
    for kind in options.tokenizer:
        rows = [in_a_process(options.dataset, kind) for _ in range(options.repeats if kind != "bpe" else 1)]
        size, seconds, memory, again = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"| {kind} | {size:,.0f} MB | {seconds:.1f} s | {size / seconds:,.1f} MB/s | {memory:,.0f} MB"
            f" | {again:.2f} s |",
            flush=True,
        )
    compare(options.dataset, options.peer_megabytes * 1_000_000, options.repeats)
    return 0


def in_a_process(dataset: str, kind: str) -> list[float]:
    """`measure` in a new process with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LM_CACHE")) as cache:
        command = [sys.executable, __file__, dataset, "--measure", kind, cache]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=os.getcwd())
        return json.loads(result.stdout)


def measure(dataset: str, kind: str, cache: str) -> list[float]:
    """Megabytes of text, seconds to make the stream, peak megabytes of RssAnon, seconds to find
    the stream again."""
    import torch  # noqa: F401  (train.py holds it in memory too)

    from lm.data.corpus import open_corpus

    os.environ["LM_CACHE"] = cache
    config = DataConfig(dataset=dataset, tokenizer=kind, encoding_errors="replace")
    peak, done = 0.0, threading.Event()

    def watch_memory() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_memory())

    thread = threading.Thread(target=watch_memory)
    thread.start()
    begin = time.perf_counter()
    corpus = open_corpus(config)
    seconds = time.perf_counter() - begin
    done.set()
    thread.join()
    begin = time.perf_counter()
    open_corpus(config)
    again = time.perf_counter() - begin
    size = corpus.train.counts.bytes + corpus.validation.counts.bytes
    return [size / 1e6, seconds, peak, again]


def anonymous_memory() -> float:
    """Megabytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    return 0.0


def compare(dataset: str, size: int, repeats: int) -> None:
    """bpe by `tokenizers.encode_batch` of whole documents, and by the token stream's own encoder."""
    from lm.data.corpus import write_tokens
    from lm.data.progress import no_progress
    from lm.data.sources import find_source
    from lm.data.text import write_text
    from lm.tokenization.documents import SEPARATOR, chunks
    from lm.tokenization.vocabulary import train_tokenizer

    config = DataConfig(dataset=dataset, encoding_errors="replace")
    source = find_source(dataset, config).fetched("train", no_progress)
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder) / "text", source.read("train"), size)
        documents = [d.decode() for d in text.path.read_bytes().split(SEPARATOR)]
        tokenizer = train_tokenizer("bpe", (p.decode() for d in documents for p in chunks(d.encode())))
        encode_batch = tokenizer.backend.encode_batch
        ways: dict[str, Callable[[], object]] = {
            "tokenizers.encode_batch": lambda: [
                e.ids for e in encode_batch(documents, add_special_tokens=False)
            ],
            "the token stream": lambda: write_tokens(Path(folder) / "tokens", [text], tokenizer, no_progress),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                speeds[name].append(len(text) / 1e6 / (time.perf_counter() - begin))
    print(f"\nbpe on {len(text) / 1e6:,.0f} MB in {len(documents):,} documents:")
    peer, ours = (statistics.median(values) for values in speeds.values())
    print(f"| tokenizers.encode_batch | the token stream | ratio |\n|---|---|---|\n"
          f"| {peer:.1f} MB/s | {ours:.1f} MB/s | {ours / peer:.2f} |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
