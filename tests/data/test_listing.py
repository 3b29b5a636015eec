"""Files: whole names make splits, each file is read once, and what is not text is left out and counted."""

import gzip
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from lm.config.schema import DataConfig
from lm.data.corpus import open_corpus
from lm.data.find_source import find_sources
from lm.data.listing import files_below, list_files
from lm.data.report import rows
from lm.errors import DataError, UserError
from tests.data.conftest import documents, found, read

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 9


def split_of(name, *others):
    files = list_files([f"/d/{each}" for each in (name, *others)], "/d/", {}).splits
    return next(split for split, group in files.items() if f"/d/{name}" in group)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("The Test of Time.txt", "train"),
        ("train-station.txt", "train"),
        ("test drive.txt", "train"),
        ("my.test.txt", "train"),
        ("dev_notes.md", "train"),
        ("latest.txt", "train"),
        ("valid points.txt", "train"),
        ("testaments/a.txt", "train"),
        ("a/The Dev/b.txt", "train"),
        ("train.txt", "train"),
        ("valid.txt", "validation"),
        ("Validation.TXT", "validation"),
        ("val.jsonl", "validation"),
        ("dev.txt.gz", "validation"),
        ("test.parquet", "test"),
        ("eval.txt", "test"),
        ("test-0.parquet", "test"),
        ("validation-00001-of-00002.parquet", "validation"),
        ("wiki-test-00000-of-00002.parquet", "test"),
        ("wiki-test-0-of-2.parquet", "train"),
        ("validation/a.txt", "validation"),
        ("data/test/deep/a.txt", "test"),
        ("test/train.txt", "train"),
    ],
)
def test_only_a_whole_name_makes_a_split(name, split):
    assert split_of(name) == split


def test_files_of_one_series_are_splits():
    assert split_of("ptb.valid.txt", "ptb.train.txt") == "validation"
    assert split_of("wiki.test.tokens", "wiki.train.tokens") == "test"
    assert split_of("my.test.txt", "your.train.txt") == "train"


def test_folder_above_the_given_one_does_not_count(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.txt").write_text("text")
    assert read(tmp_path / "test") == ["text"]


@pytest.fixture
def messy(tmp_path):
    folder = tmp_path / "messy"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("about it")
    (folder / "a.txt").write_text("one")
    (folder / "empty.txt").write_text("")
    (folder / "sub" / "b.txt").write_text("two")
    (folder / "sub" / "cover.jpg").write_bytes(JPEG)
    (folder / "noise").write_bytes(bytes(range(256)) * 40)
    (folder / ".DS_Store").write_bytes(JPEG)
    return folder


EXPECTED = "3 for training (README.md, a.txt, b.txt); skipped 1 empty file (empty.txt)"
EXPECTED += ", 2 binary files (noise, cover.jpg)"


def test_binary_and_empty_files_are_left_out_and_counted(messy, tmp_path, monkeypatch):
    assert read(messy) == ["about it", "one", "two"]
    assert found(messy).listing.row() == EXPECTED
    with zipfile.ZipFile(tmp_path / "messy.zip", "w") as archive:
        for file in files_below(messy)[0]:
            archive.write(file, os.path.relpath(file, messy))
    assert read(tmp_path / "messy.zip") == ["about it", "one", "two"]
    assert found(tmp_path / "messy.zip").listing.row() == EXPECTED
    assert read(messy / "*") == ["about it", "one"]
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    corpus = open_corpus(DataConfig(dataset=str(messy)))
    assert rows(corpus)["Files"] == EXPECTED
    (messy / "noise").unlink()
    corpus = open_corpus(DataConfig(dataset=str(messy)))
    assert rows(corpus)["Files"] == EXPECTED.replace("2 binary files (noise, ", "1 binary file (")


def test_looking_at_many_files_takes_no_memory(tmp_path):
    files = [str(tmp_path / str(number)) for number in range(200)]
    for file in files:
        Path(file).write_text("x" * (1 << 13))
    tracemalloc.start()
    assert list_files(files, None, {}).splits == {"train": files}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 19


def test_report_says_what_each_file_became(tmp_path):
    for name in ("train.txt", "dev.txt", "The Test of Time.txt"):
        (tmp_path / name).write_text(name)
    row = found(tmp_path).listing.row()
    assert row == "2 for training (The Test of Time.txt, train.txt), 1 for validation (dev.txt)"


def test_report_shows_names_with_control_characters_on_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a\nb\u202e.txt", "text")
        archive.writestr("c\x1b[1m.jpg", JPEG)
    row = found(tmp_path / "a.zip").listing.row()
    assert row == "1 for training (a b\ufffd.txt); skipped 1 binary file (c\ufffd[1m.jpg)"


def test_text_with_a_few_control_characters_is_not_binary(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"some text\0" + b"more text " * 50)
    (tmp_path / "b.txt").write_text("some text", encoding="utf-16")
    (tmp_path / "c.txt").write_text("some text", encoding="utf-16-le")
    assert len(read(tmp_path)) == 3


def test_text_in_another_encoding_is_an_error_rather_than_binary(tmp_path):
    (tmp_path / "a.txt").write_bytes("Façade d’un café, à côté".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8.*--encoding cp1252"):
        read(tmp_path)
    assert read(tmp_path, encoding="cp1252") == ["Façade d’un café, à côté"]


def test_folder_with_nothing_but_binary_files_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    with pytest.raises(DataError, match=r"contains no text: skipped 1 binary file \(a\.jpg\)\."):
        read(tmp_path)


def test_folder_with_nothing_but_hidden_files_is_an_error(tmp_path):
    (tmp_path / ".hidden.txt").write_text("text")
    with pytest.raises(DataError, match=r"^the folder \S+ contains no files, or only hidden ones\.$"):
        found(tmp_path)


def test_readme_next_to_tables_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}))
    (tmp_path / "README.md").write_text("about it")
    assert read(tmp_path) == ["one"]
    assert found(tmp_path).listing.row() == "1 for training (a.jsonl); skipped 1 other file (README.md)"
    (tmp_path / "story.txt").write_text("a story")
    with pytest.raises(DataError, match="several kinds"):
        read(tmp_path)


def test_table_about_a_dataset_is_left_out_next_to_texts(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "dataset_info.json").write_text('{"description": "about it"}')
    assert read(tmp_path) == ["a text"]
    assert "skipped 1 other file (dataset_info.json)" in found(tmp_path).listing.row()
    (tmp_path / "rows.json").write_text('["a row"]')
    with pytest.raises(DataError, match="files of several kinds"):
        found(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "state.json"])
def test_table_about_a_dataset_is_left_out_next_to_tables(tmp_path, name):
    about = tmp_path / name
    about.write_text('[{"text": "about it"}]')
    assert read(tmp_path) == ["about it"]
    (tmp_path / "README.md").write_text("about it")
    (tmp_path / "a.jsonl").write_text('{"text": "a row"}')
    assert read(tmp_path) == ["a row"]
    assert f"skipped 2 other files (README.md, {name})" in found(tmp_path).listing.row()


def test_compressed_text_in_an_archive_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt.gz", gzip.compress(b"compressed"))
        archive.writestr("b.txt", "plain")
        archive.writestr("c.jpg", JPEG)
    assert read(tmp_path / "a.zip") == ["compressed", "plain"]


@pytest.mark.parametrize("name", ["File::Spec.txt", "a::b::c.txt", "::a.txt", "a::.txt", "zip::a.txt"])
def test_a_name_may_contain_colons(tmp_path, name):
    folder = tmp_path / "a::b"
    folder.mkdir()
    (folder / name).write_text("text")
    (folder / f"{name}.gz").write_bytes(gzip.compress(b"compressed"))
    assert sorted(read(folder)) == sorted(read(folder / "*")) == ["compressed", "text"]
    assert read(folder / name) == ["text"]
    assert read(folder / f"{name}.gz") == ["compressed"]
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    assert read(folder / f"{name}.zip") == ["text"]
    (folder / f"{name}.csv").write_text("id,text\n1,a row\n")
    assert read(folder / f"{name}.csv") == ["a row"]


def test_an_archive_may_have_names_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train", "valid", "test"):
            archive.writestr(f"{name}\\b.txt", f"{name} text")
    for split in ("train", "validation", "test"):
        assert documents(found(tmp_path / "a.zip"), split) == [f"{split[:5]} text"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_each_content_in_an_archive_is_read_once(tmp_path):
    members = [("b.txt", "one"), ("a.txt", "two"), ("b.txt", "three"), ("b.txt", "one"), ("2/b.txt", "four")]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in members:
            archive.writestr(name, text)
    assert sorted(read(tmp_path / "a.zip")) == ["four", "one", "three", "two"]
    assert found(tmp_path / "a.zip").listing.row() == "4 for training (b.txt, a.txt, b.txt, …)"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_files_of_the_same_name_in_an_archive_are_of_the_same_split_and_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, row in enumerate(("one", "two", "three", "four")):
            archive.writestr(["train.csv", "valid.csv"][number % 2], f"text\n{row}\n")
    assert read(tmp_path / "a.zip") == ["one", "three"]
    assert documents(found(tmp_path / "a.zip"), "validation") == ["two", "four"]


def test_report_names_three_files(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("a text")
    assert found(tmp_path).listing.row() == "3 for training (a.txt, b.txt, c.txt)"
    (tmp_path / "d.txt").write_text("a text")
    assert found(tmp_path).listing.row() == "4 for training (a.txt, b.txt, c.txt, …)"


def test_overlapping_arguments_read_each_file_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    overlapping = (str(tmp_path / "a.txt"), str(tmp_path / "*.txt"), str(tmp_path), str(tmp_path / "a.txt"))
    first, second = find_sources(DataConfig(dataset=overlapping))
    assert (documents(first), documents(second)) == (["a"], ["b"])
    assert second.listing.row() == "1 for training (b.txt); skipped 1 repeated file (a.txt)"
    assert second.identity == found(tmp_path / "b.txt").identity
    with pytest.raises(UserError, match=r"--mix needs different texts"):
        find_sources(DataConfig(dataset=overlapping[:1] * 2, mix=(0.5, 0.5)))


def test_a_pipe_is_not_called_misspelled(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt is neither a file nor a folder; --dataset - reads "):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["hamlt.txt", "Hamlet.TXT", "hamlett.txt"])
def test_misspelled_file_gets_a_suggestion(tmp_path, name):
    (tmp_path / "hamlet.txt").write_text("text")
    with pytest.raises(DataError, match=r"did you mean '.*hamlet\.txt'\?"):
        read(tmp_path / name)
    with pytest.raises(DataError, match=r"there is no file or folder '.*xyz\.txt'\.$"):
        read(tmp_path / "xyz.txt")
