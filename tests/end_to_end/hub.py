"""Repositories on the local Hub of tests/hub/, and short runs of train.py that use it."""

import json
import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.corpus import cached_corpus
from tests.conftest import script, some_text

TINY = ["--hidden-size", "8", "--layers", "1", "--batch-size", "4", "--bptt", "8", "--quiet", "--overwrite"]
OFFLINE = {"HF_HUB_OFFLINE": "1"}
# Several command lines of train.py in one process: most of the time of a short run goes into imports.
SEVERAL = """
import json, sys, time
from lm.cli import train
from lm.cli.parser import run
for command in json.loads(sys.argv[1]):
    start = time.monotonic()
    status = run(lambda: train.main(command))
    print(f"\\0{status} {time.monotonic() - start}", file=sys.stderr, flush=True)
"""


class Result(NamedTuple):
    """How a run of train.py ended, and what it wrote to standard error."""

    status: int
    error: str
    seconds: float


def several(hub, *commands, **environment) -> list[Result]:
    """Run train.py with each command line, all in one new process."""
    (hub.root / "several.py").write_text(SEVERAL)
    lines = [[*map(str, command), *TINY, "--steps", "2", "--out", "run"] for command in commands]
    done = script(str(hub.root / "several.py"), json.dumps(lines), cwd=hub.root, env=environment)
    results = re.findall(r"([^\0]*)\0(\d+) (\S+)\n", done.stderr)
    assert len(results) == len(commands), done.stderr
    return [Result(int(status), error, float(seconds)) for error, status, seconds in results]


def statuses(results) -> list[int]:
    assert all(not result.error for result in results), results
    return [result.status for result in results]


def documents(hub, name: str, split: str = "train") -> list[str]:
    """The documents of the most recent token stream of a dataset."""
    folder = max((hub.root / "cache").glob(f"{name}-*"), key=lambda path: path.stat().st_mtime_ns)
    return all_documents(folder.name, [split])


def all_documents(key: str, splits: list[str]) -> list[str]:
    """The documents of a token stream's splits."""
    corpus = cached_corpus(key)
    texts = []
    for split in splits:
        tokens = getattr(corpus, split).tokens
        ends = np.flatnonzero(tokens == corpus.tokenizer.eos)
        texts += [corpus.tokenizer.decode(ids[ids != corpus.tokenizer.eos]) for ids in np.split(tokens, ends)]
    return texts


def use(hub, monkeypatch) -> None:
    """Make all processes that the test starts use this Hub and a cache of its own."""
    settings = {**hub.environment(hub.root / "hf"), "LM_CACHE": str(hub.root / "cache")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def put(hub, path: str, texts: list[str] | str, kind: str = "datasets") -> list[str] | str:
    """Put a file into a repository: documents as Parquet, or a text as it is."""
    file = hub.root / kind / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), file)
    else:
        file.write_text(texts)
    return texts


def lines(seed: int, count: int = 40) -> list[str]:
    return some_text(50 * count, seed).splitlines()[:count]


def put_dataset(hub, repo: str = "org/set", shards: int = 3) -> list[str]:
    """Create a typical Hub dataset with shards and three splits; returns its training documents."""
    put(hub, f"{repo}/data/validation-00000-of-00001.parquet", lines(90))
    put(hub, f"{repo}/data/test-00000-of-00001.parquet", lines(91))
    of = f"{shards:05}.parquet"
    files = [put(hub, f"{repo}/data/train-{i:05}-of-{of}", lines(i)) for i in range(shards)]
    return [text for file in files for text in file]


def left_behind(hub) -> list[str]:
    """The token streams and unfinished files in the caches."""
    cache = [p.name for p in (hub.root / "cache").iterdir() if p.name not in ("known", "locks")]
    return cache + [p.name for p in (hub.root / "hf").rglob("*.incomplete")]
