"""Reading files: the same text whatever the compression, the encoding and the line ends."""

import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.console.invocation import pip_install
from lm.data import decoding
from lm.errors import DataError
from tests.conftest import script, some_text
from tests.data.conftest import documents, found, jsonl, read
from tests.data.packed import COMPRESS

TEXT = "drittér Text\n中文 " * 3


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed_files_are_decompressed(tmp_path, kind):
    (tmp_path / f"a.txt.{kind}").write_bytes(COMPRESS[kind](TEXT.encode()))
    (tmp_path / f"b.jsonl.{kind}").write_bytes(COMPRESS[kind](json.dumps({"text": TEXT}).encode()))
    assert read(tmp_path / f"a.txt.{kind}") == [TEXT]
    assert read(tmp_path / f"b.jsonl.{kind}") == [TEXT]
    assert found(tmp_path / f"a.txt.{kind}").name == "a"


@pytest.mark.parametrize("kind", COMPRESS)
def test_truncated_compressed_file_is_an_error(tmp_path, kind):
    whole = COMPRESS[kind]("".join(map(chr, range(300, 9000))).encode())
    (tmp_path / f"a.{kind}").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=rf"a\.{kind} (is damaged|cannot be read): \S.*\.$"):
        read(tmp_path / f"a.{kind}")


@pytest.mark.parametrize(
    "raw",
    [
        b"one\r\ntwo\nthree",
        b"\xef\xbb\xbfone\ntwo\r\nthree",
        "one\r\ntwo\nthree".encode("utf-16"),
        b"\xfe\xff" + "one\ntwo\nthree".encode("utf-16-be"),
    ],
)
def test_line_ends_and_byte_order_marks_are_normalized(tmp_path, raw):
    (tmp_path / "t.txt").write_bytes(raw)
    assert read(tmp_path / "t.txt") == ["one\ntwo\nthree"]


def test_line_ends_across_blocks_are_normalized(tmp_path):
    lines = b"x\r\n" * 700_000  # blocks end at each of the three bytes
    (tmp_path / "t.txt").write_bytes(lines)
    assert read(tmp_path / "t.txt") == ["x\n" * 700_000]


@pytest.mark.parametrize("kind", ["plain", "zip", *COMPRESS])
def test_a_folder_of_utf_8_and_another_encoding_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    czech = "Příliš žluťoučký kůň.\n"
    texts = {
        "ascii": b"plain",
        "late": b"x" * 5000 + czech.encode("cp1250"),
        "legacy": czech.encode("cp1250"),
    }
    texts |= {"marked": czech.encode("utf-16"), "utf8": b"x" * 5000 + czech.encode()}
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in texts.items():
                archive.writestr(name, raw)
        folder = folder / "a.zip"
    else:
        for name, raw in texts.items():
            (folder / f"{name}.{kind}").write_bytes(COMPRESS.get(kind, bytes)(raw))
    source = found(folder, encoding="cp1250")
    assert documents(source) == ["plain", "x" * 5000 + czech, czech, czech, "x" * 5000 + czech]
    marked, utf_8 = source.decoded.own_encoding
    assert "marked" in marked and "utf8" in utf_8


def test_lone_carriage_returns_are_line_breaks_and_nuls_are_kept(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"a\rb\0c\r\r\nd\r")
    assert read(tmp_path / "t.txt") == ["a\nb\0c\n\nd\n"]


def test_empty_files_are_skipped(tmp_path):
    for name, text in (("a", "one"), ("b", ""), ("c", "two")):
        (tmp_path / name).write_text(text)
    assert read(tmp_path) == ["one", "two"]


def test_deleted_file_is_an_error(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    source = found(tmp_path)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt was deleted before it could be read"):
        list(source.read("train"))


def test_json_lines_of_joined_files_may_have_byte_order_marks(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff{"text": "one two"}\n' * 3)
    assert read(tmp_path / "a.jsonl") == ["one two"] * 3


def test_invalid_json_is_reported_with_its_line_number(tmp_path):
    rows = [json.dumps({"text": f"row {i}"}) for i in range(50)]
    rows[36] = '{"text": "no end'
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"r\.jsonl, line 37, is not JSON"):
        read(tmp_path / "r.jsonl")


def table(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_column_of_single_words_is_not_the_text(tmp_path):
    path = table(tmp_path, id=["a1", "a2"], label=["good", "bad"], story=["a long day", "the end"])
    assert read(path) == ["a long day", "the end"]


def test_ambiguous_text_column_is_an_error_that_shows_the_columns(tmp_path):
    path = table(tmp_path, n=[1], title=["On the sea"], body=["It was a calm and sunny day, that day"])
    with pytest.raises(DataError, match=r"--text-column: title \('On the sea'\), body \('It was .*…\)\.$"):
        read(path)
    assert read(path, text_column="title") == ["On the sea"]


def test_table_without_text_is_an_error(tmp_path):
    with pytest.raises(
        DataError,
        match=r"no column of t contains text: n \(1\); to use one of them anyway, name it with --text-column",
    ):
        read(table(tmp_path, n=[1]))


def test_bytes_and_rows_without_columns_cannot_be_read_anyway(tmp_path):
    pq.write_table(pa.table({"image": [b"\xff\xd8"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"no column of b contains text: image \(b'\\xff\\xd8'\)\.$"):
        read(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"no column of e contains text: it has no columns\.$"):
        read(jsonl(tmp_path / "e.jsonl", [{}]))


WITHOUT_DATASETS = """
import sys
sys.modules |= {"datasets": None, "pyarrow": None}  # importing them raises ImportError
from lm.cli.start import script
script("train")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("folder", None),
        ("archive.zip", None),
        ("table.csv", None),
        ("table.jsonl", None),
        ("table.parquet", "pyarrow"),
        ("streamed.jsonl", "datasets"),
    ],
)
def test_only_parquet_and_streaming_need_further_libraries(tmp_path, name, needed):
    (tmp_path / "without_datasets.py").write_text(WITHOUT_DATASETS)
    text = some_text(2000)
    (tmp_path / "folder").mkdir()
    for file in ("folder/train.txt.gz", "folder/valid.txt.gz"):
        (tmp_path / file).write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("a.txt", text)
    (tmp_path / "table.jsonl").write_text(json.dumps({"text": text}))
    (tmp_path / "table.csv").write_text(f'text\n"{text}"\n')
    pq.write_table(pa.table({"text": [text]}), tmp_path / "table.parquet")
    (tmp_path / "streamed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in text.splitlines()))
    settings = ["--dataset", name, *(["--streaming"] if name == "streamed.jsonl" else [])]
    settings += ["--hidden-size", "4", "--batch-size", "2", "--steps", "1", "--quiet", "--out", "run"]
    done = script(str(tmp_path / "without_datasets.py"), *settings, cwd=tmp_path)
    if needed is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert f"needs the `{needed}` library: {pip_install('data')}" in done.stderr
