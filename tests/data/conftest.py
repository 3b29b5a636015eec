"""For the tests of data: an empty cache, and ways to write tables and to read texts."""

import json

import pytest

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.find_source import find_sources
from lm.data.streaming import DocumentStream


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))


def found(dataset, **options):
    (source,) = find_sources(DataConfig(dataset=str(dataset), **options))
    return source


def documents(source, split="train"):
    """The documents of a split, as text."""
    return (
        b"".join(source.fetched(split, no_progress).read(split))
        .decode("utf-8", "surrogateescape")
        .split("\udcff")
    )


def read(dataset, **options):
    return documents(found(dataset, **options), options.get("train_split", "train"))


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def written(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def notes_of(path, **options):
    """What reading a table found out about it."""
    source = found(path, **options)
    list(source.read("train"))
    return source.notes["train"]


def warnings_of(path, **options):
    return list(notes_of(path, **options).facts("t")["warnings"])


def streamed(path, count, **options):
    """The first documents of a streamed table, in the order of the file."""
    stream = DocumentStream(
        DataConfig(dataset=str(path), streaming=True, shuffle_buffer=1, **options), [0], 1
    )
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()
