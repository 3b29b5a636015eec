"""Identities: files that are read in another way are another text, wherever they are."""

import hashlib
import os
import time
import zipfile
from pathlib import Path

import pytest

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data import fingerprint
from lm.data.cache import known
from lm.data.corpus import open_corpus
from lm.data.eval_text import read_whole
from tests.data.conftest import found, read

pytestmark = pytest.mark.usefixtures("empty_cache")

QUOTED = b'id\ttext\n1\t"Hamlet: the question\n2\tis whether it is nobler" to suffer\n' * 9


@pytest.fixture
def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "made", "w") as archive:
        archive.writestr("a.txt", "the sea was calm and a boat went out " * 9)
    return (tmp_path / "made").read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a.csv", "a.tsv"),
        ("a.TSV", "a.csv"),
        ("a.tsv", "a.txt"),
        ("a.json", "a.jsonl"),
        ("a.ndjson", "a.json"),
        ("a.txt.gz", "a.bin"),
        ("a.txt.gz", "a.txt.xz"),
        ("a.csv.gz", "a.tsv.gz"),
    ],
)
@pytest.mark.parametrize("folder", ["", "folder"])
def test_a_file_that_is_read_in_another_way_has_another_identity(tmp_path, before, after, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / before).write_bytes(QUOTED)
    first = found(tmp_path / (folder or before)).identity
    (tmp_path / folder / before).rename(tmp_path / folder / after)
    assert found(tmp_path / (folder or after)).identity != first


def test_a_zip_archive_with_another_name_is_another_text(tmp_path, zipped):
    (tmp_path / "made").rename(tmp_path / "a.zip")
    first = found(tmp_path / "a.zip").identity
    (tmp_path / "a.zip").rename(tmp_path / "a.bin")
    assert found(tmp_path / "a.bin").identity != first


def test_a_file_of_the_same_size_and_time_is_not_read_from_the_cache(tmp_path, monkeypatch):
    """As after `cp -p`, or from a program that sets fixed times."""
    path, texts, times = tmp_path / "a.txt", ["one two three\n" * 99, "six ten eight\n" * 99], (10**9, 10**9)
    monkeypatch.setattr(
        fingerprint.time, "time_ns", lambda: 10**10 + time.clock_gettime_ns(time.CLOCK_REALTIME)
    )
    identities = []  # ten seconds later, when the file counts as settled
    for text in texts:
        path.write_text(text)
        os.utime(path, times)
        identities.append([found(path).identity, found(path).identity])
    assert identities[0] != identities[1] and all(first == second for first, second in identities)


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"0" * 63, b"G" * 64, b"0" * 64 + b"\n"])
def test_a_damaged_identity_in_the_cache_is_computed_again(tmp_path, monkeypatch, garbage):
    later = 10**10 + time.time_ns()  # ten seconds later, when the file counts as settled
    monkeypatch.setattr(fingerprint.time, "time_ns", lambda: later)
    path = tmp_path / "a.txt"
    path.write_text("the sea was calm\n" * 9)
    before = found(path).identity
    (stored,) = (file for file in known("").iterdir() if file.read_text() == before)
    stored.write_bytes(garbage)
    assert found(path).identity == before == stored.read_text()


@pytest.mark.parametrize("names", [("a.csv", "a.tsv"), ("a.tsv", "a.csv"), ("a.csv", "a.txt")])
def test_a_renamed_file_is_not_read_from_the_cache(tmp_path, names):
    before, after = (tmp_path / name for name in names)
    before.write_bytes(QUOTED)
    open_corpus(DataConfig(dataset=str(before)))
    before.rename(after)
    corpus = open_corpus(DataConfig(dataset=str(after)))
    characters = corpus.train.counts.characters + corpus.validation.counts.characters
    assert characters == sum(map(len, read(after)))


@pytest.mark.parametrize("name", ["b.txt", "b", "b.md", "b.csv.txt", "B.zip.txt"])
def test_the_name_of_plain_text_changes_nothing(tmp_path, name):
    (tmp_path / "a.txt").write_text("the sea")
    (tmp_path / name).write_text("the sea")
    assert found(tmp_path / name).identity == found(tmp_path / "a.txt").identity


def test_the_identity_of_plain_text_is_that_of_older_caches(tmp_path, zipped):
    (tmp_path / "a.txt").write_text("the sea")
    content = hashlib.sha256(b"the sea").hexdigest()
    assert found(tmp_path / "a.txt").identity == hashlib.sha256(f"train\0\0{content}\0".encode()).hexdigest()
    (tmp_path / "made").rename(tmp_path / "a.zip")
    content = hashlib.sha256(zipped).hexdigest()
    expected = hashlib.sha256(f"train\0zip://a.txt\0{content}\0".encode()).hexdigest()
    assert found(tmp_path / "a.zip").identity == expected


def test_only_training_hashes_a_text_and_each_file_once_before_and_after_reading(tmp_path, monkeypatch):
    hashed = []
    file_hash = fingerprint.digest_of
    monkeypatch.setattr(fingerprint, "digest_of", lambda path: hashed.append(path) or file_hash(path))
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for file in files:
        Path(file).write_text(f"{file} is a file. " * 9)
    datasets = (files[0], str(tmp_path / "*.txt"))
    assert len(read_whole(DataConfig(dataset=datasets), None, no_progress).text) > 100
    assert not hashed
    open_corpus(DataConfig(dataset=datasets))
    assert hashed == 2 * files
