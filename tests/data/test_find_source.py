"""Sources: text is found and read, whatever its file format."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config.schema import DataConfig
from lm.data.cache import cache_folder
from lm.data.find_source import find_sources, python_library
from lm.errors import DataError, UserError
from tests.data.conftest import documents, found, notes_of, read, streamed

ROWS = ["first text", "second\ntext", "drittér"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.txt").write_text(ROWS[1])
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(ROWS))
    )
    (tmp_path / "c.csv").write_text('id,text\n1,first text\n2,"second\ntext"\n3,drittér\n')
    pq.write_table(pa.table({"id": [1, 2, 3], "text": ROWS}), tmp_path / "d.parquet")
    return tmp_path


def test_text_file_is_one_document(files):
    assert read(files / "a.txt") == [ROWS[1]]


@pytest.mark.parametrize("name", ["b.jsonl", "c.csv", "d.parquet"])
def test_each_row_of_a_table_is_a_document(files, name):
    assert read(files / name) == ROWS


def test_folder_is_read_in_sorted_order(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt", ".hidden"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert read(tmp_path) == ["a.txt", "b.txt", "deep/c.txt"]


def test_folder_is_split_by_file_names(tmp_path):
    for name in ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"):
        (tmp_path / name).write_text(name)
    source = found(tmp_path)
    assert set(source.files) == {"train", "validation", "test"}
    assert documents(source, "validation") == ["ptb.valid.txt"]


def test_glob_reads_all_matches(files):
    (files / "a2.txt").write_text("more")
    assert read(files / "a*.txt") == [ROWS[1], "more"]


def test_dash_reads_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ünï\n".encode())))
    assert read("-") == ["ünï\n"]


def test_python_library_has_no_tests():
    files = python_library()
    assert files == sorted(files)
    assert any(file.endswith("argparse.py") for file in files)
    assert not any("/test/" in file or "site-packages" in file for file in files)


def test_only_text_column_is_detected(tmp_path):
    pq.write_table(pa.table({"id": [1], "body": ["hello"]}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == ["hello"]


def test_empty_rows_are_skipped(tmp_path):
    pq.write_table(pa.table({"text": ["a", None, "", "b", " ", "\n \t", " c\n"]}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == ["a", "b", " c\n"]
    assert notes_of(tmp_path / "x.parquet").empty == 4
    assert streamed(tmp_path / "x.parquet", 4) == ["a", "b", " c\n", "a"]


def test_identity_depends_on_the_content_not_the_path(tmp_path):
    for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", "other")):
        (tmp_path / name).write_text(text)
    a, b, c = (found(tmp_path / f"{n}.txt").identity for n in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    "before",
    [b"", b"x" * 100, "é".encode() * 600_000, b"y" * ((1 << 20) - 1)],
    ids=["at the start", "short", "two bytes each", "end of a block"],
)
def test_invalid_utf8_is_reported_with_its_position(tmp_path, before):
    (tmp_path / "bad.txt").write_bytes(before + b"\xff rest")
    with pytest.raises(DataError, match=rf"bad\.txt is not UTF-8: byte 0xff at position {len(before):,};"):
        read(tmp_path / "bad.txt")
    assert read(tmp_path / "bad.txt", encoding_errors="replace")[0].endswith("\ufffd rest")


def test_partial_character_at_the_end_is_an_error(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"abc\xe4\xb8")
    with pytest.raises(DataError, match="position 3"):
        read(tmp_path / "bad.txt")


def test_missing_column_error_lists_the_columns(files):
    with pytest.raises(DataError, match="no column 'body'; it has id, text"):
        read(files / "b.jsonl", text_column="body")


def test_misspelled_column_is_suggested(files):
    with pytest.raises(DataError, match="no column 'txt'; it has id, text; did you mean 'text'"):
        read(files / "b.jsonl", text_column="txt")


def test_missing_split_error_lists_the_splits(files):
    with pytest.raises(DataError, match="no split 'dev'; it has train"):
        read(files / "a.txt", train_split="dev")


def test_files_of_several_kinds_are_an_error(files):
    with pytest.raises(DataError, match="several kinds"):
        read(files)


def test_truncated_parquet_file_is_an_error(files):
    path = files / "d.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"d\.parquet is damaged or truncated .*: download it again"):
        read(path)


@pytest.mark.parametrize(
    "name", ["missing.txt", "no/such/folder", "*.nothing", "missing.parquet", "MISSING.CSV"]
)
def test_missing_file_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^(there is no file|no file matches).*'\.$"):
        read(name)


GIVEN = {
    "dataset_config": "en",
    "dataset_revision": "main",
    "text_column": "text",
    "json_field": "data",
    "header": False,
    "encoding": "utf-8",
    "encoding_errors": "replace",
    "document_separator": "line",
}
READS = {"a.txt": "text", "b.jsonl": "json", "c.csv": "csv", "d.parquet": "parquet"}
USED = {
    "dataset_config": [],
    "dataset_revision": [],
    "text_column": ["b.jsonl", "c.csv", "d.parquet"],
    "json_field": ["b.jsonl"],
    "header": ["c.csv"],
    "encoding": ["a.txt", "b.jsonl", "c.csv"],
    "encoding_errors": ["a.txt", "b.jsonl", "c.csv"],
    "document_separator": ["a.txt"],
}


@pytest.mark.parametrize("file", READS)
@pytest.mark.parametrize("name", GIVEN)
def test_setting_that_would_be_ignored_is_an_error(files, name, file):
    options = {name: GIVEN[name]}
    if file in USED[name]:
        assert found(files / file, **options).kind == READS[file]
        return
    flag = "--no-header" if name == "header" else "--" + name.replace("_", "-")
    with pytest.raises(UserError, match=rf"^{flag} applies only to .*: leave it out for .*/{file}\.$"):
        found(files / file, **options)


def test_setting_is_used_if_one_of_the_texts_needs_it(files):
    datasets = (str(files / "a.txt"), str(files / "b.jsonl"))
    config = DataConfig(dataset=datasets, text_column="id", document_separator="line")
    text, table = find_sources(config)
    assert documents(text) == ["second", "text"]
    assert documents(table) == ["0", "1", "2"]


def test_setting_for_tables_is_an_error_with_standard_input(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    with pytest.raises(UserError, match="--text-column applies only to tables: leave it out for stdin"):
        find_sources(DataConfig(dataset="-", text_column="text"))
    assert not list(cache_folder().glob("stdin*"))


def test_standard_input_can_be_read_only_once():
    with pytest.raises(
        UserError, match=r"^--dataset - can be given only once: standard input has one text\.$"
    ):
        find_sources(DataConfig(dataset=("-", "a.txt", "-")))


def test_folder_named_python_is_noted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not found("python").warnings
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "a.txt").write_text("a text of mine")
    assert found("python").warnings == (
        "python is the source code of Python's library; ./python is what has that name here.",
    )
    assert read("./python") == ["a text of mine"]
