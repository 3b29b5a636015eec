"""Reading files: whatever they are compressed by and however their lines end, one text comes out."""

import bz2
import gzip
import json
import lzma
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.errors import DataError
from tests.data.test_sources import found, read

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = "drittér Text\n中文 " * 3
COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_is_read_as_what_is_in_it(tmp_path, kind):
    (tmp_path / f"a.txt.{kind}").write_bytes(COMPRESS[kind](TEXT.encode()))
    (tmp_path / f"b.jsonl.{kind}").write_bytes(COMPRESS[kind](json.dumps({"text": TEXT}).encode()))
    assert read(tmp_path / f"a.txt.{kind}") == [TEXT]
    assert read(tmp_path / f"b.jsonl.{kind}") == [TEXT]
    assert found(tmp_path / f"a.txt.{kind}").name == "a"


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_cut_short_is_damaged(tmp_path, kind):
    whole = COMPRESS[kind]("".join(map(chr, range(300, 9000))).encode())
    (tmp_path / f"a.{kind}").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=rf"a\.{kind} (is damaged|cannot be read): \S.*\.$"):
        read(tmp_path / f"a.{kind}")


def test_an_archive_is_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        for name in ("b/two.txt", "a/one.txt", "c/test.txt.gz", "__MACOSX/a/._one.txt", "a/.hidden"):
            archive.writestr(name, gzip.compress(b"three") if name.endswith("gz") else name)
    source = found(tmp_path / "books.zip")
    assert read(tmp_path / "books.zip") == ["a/one.txt", "b/two.txt"]
    assert set(source.files) == {"train", "test"}
    assert read(tmp_path / "books.zip", train_split="test") == ["three"]
    (tmp_path / "books.zip").write_bytes((tmp_path / "books.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="as a zip archive"):
        read(tmp_path / "books.zip")


@pytest.mark.parametrize(
    "raw",
    [
        b"one\r\ntwo\nthree",
        b"\xef\xbb\xbfone\ntwo\r\nthree",
        "one\r\ntwo\nthree".encode("utf-16"),
        b"\xfe\xff" + "one\ntwo\nthree".encode("utf-16-be"),
    ],
)
def test_line_ends_and_byte_order_marks_are_those_of_everyone(tmp_path, raw):
    (tmp_path / "t.txt").write_bytes(raw)
    assert read(tmp_path / "t.txt") == ["one\ntwo\nthree"]


def test_line_ends_on_the_border_of_a_block(tmp_path):
    lines = b"x\r\n" * 700_000  # borders of blocks fall on each of the three
    (tmp_path / "t.txt").write_bytes(lines)
    assert read(tmp_path / "t.txt") == ["x\n" * 700_000]


def test_a_lone_carriage_return_and_nul_stay(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"a\rb\0c\r")
    assert read(tmp_path / "t.txt") == ["a\rb\0c\r"]


def test_an_empty_file_is_no_document(tmp_path):
    for name, text in (("a", "one"), ("b", ""), ("c", "two")):
        (tmp_path / name).write_text(text)
    assert read(tmp_path) == ["one", "two"]


def test_a_file_that_vanishes_is_told(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    source = found(tmp_path)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt was deleted before it could be read"):
        list(source.read("train"))


def test_a_bad_line_of_json_is_told_by_its_number(tmp_path):
    rows = [json.dumps({"text": f"row {i}"}) for i in range(50)]
    rows[36] = '{"text": "no end'
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"r\.jsonl, line 37, is not JSON"):
        read(tmp_path / "r.jsonl")


def table(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_a_column_of_words_is_not_taken_for_the_text(tmp_path):
    path = table(tmp_path, id=["a1", "a2"], label=["good", "bad"], story=["a long day", "the end"])
    assert read(path) == ["a long day", "the end"]


def test_where_several_columns_could_be_the_text_they_are_shown(tmp_path):
    path = table(tmp_path, n=[1], title=["On the sea"], body=["It was a calm and sunny day, that day"])
    with pytest.raises(
        DataError, match=r"--text-column: n \(1\), title \('On the sea'\), body \('It was .*…\)\.$"
    ):
        read(path)
    assert read(path, text_column="title") == ["On the sea"]


def test_a_table_without_text(tmp_path):
    with pytest.raises(DataError, match=r"no column of t contains text: n \(1\)"):
        read(table(tmp_path, n=[1]))
