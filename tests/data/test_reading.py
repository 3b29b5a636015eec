"""Reading files: the same text whatever the compression, the encoding and the line ends."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import sys
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config.schema import DataConfig
from lm.console.invocation import pip_install
from lm.data import decoding, reading
from lm.data.corpus import open_corpus
from lm.errors import DataError
from tests.conftest import script, some_text
from tests.data.conftest import documents, found, jsonl, read

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = "drittér Text\n中文 " * 3
COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


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


def test_zip_archive_is_read_like_a_folder(tmp_path):
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
    "name",
    ["../a.txt", "a/../../b.txt", "/etc/a.txt", "..\\a.txt", "C:\\a.txt", "C:/a.txt", "a::b", ".."],
)
def test_a_name_that_leads_out_of_an_archive_is_named(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        archive.writestr("good.txt", "good")
        archive.writestr(name, "evil")
    with pytest.raises(DataError, match="is not one inside the archive") as error:
        found(tmp_path / "books.zip")
    assert f"'{name}'" in str(error.value)


def test_an_encrypted_archive_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip is encrypted: unpack the archive, and use its files\.$"):
        read(tmp_path / "a.zip")


def test_an_archive_without_files_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        archive.writestr(".hidden", "text")
    with pytest.raises(DataError, match=r"books\.zip contains no files\.$"):
        found(tmp_path / "books.zip")


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".txt.gz"])
def test_an_archive_is_opened_once_for_all_its_files(tmp_path, monkeypatch, ending):
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        for number in range(300):
            text = f'{{"text": "row {number}"}}'.encode()
            archive.writestr(f"{number:03}{ending}", gzip.compress(text) if ending == ".txt.gz" else text)
    opened = []
    read_directory = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(
        zipfile.ZipFile, "_RealGetContents", lambda self: (opened.append(1), read_directory(self))
    )
    texts = read(tmp_path / "books.zip")
    assert len(texts) == 300 and "row 299" in texts[-1]
    assert len(opened) == 1


def test_a_replaced_archive_is_read_again(tmp_path):
    for text in ("one", "another"):
        with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
            archive.writestr("a.txt", text)
        assert read(tmp_path / "books.zip") == [text]
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("a.txt", "a third")
    os.replace(tmp_path / "new.zip", tmp_path / "books.zip")
    assert read(tmp_path / "books.zip") == ["a third"]
    reading.close_archives()
    assert read(tmp_path / "books.zip") == ["a third"]


@pytest.fixture
def small_bombs(monkeypatch, tmp_path):
    """Bombs of a size that is quick to make, and an empty cache."""
    monkeypatch.setattr(reading, "_ALWAYS_UNPACKED", 1 << 20)
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))


TARS = [("tar", "w"), ("tar.gz", "w:gz"), ("TGZ", "w:gz"), ("tar.bz2", "w:bz2"), ("txz", "w:xz")]


def tarred(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("ending", "mode"), TARS)
def test_tar_archive_is_read_like_a_folder_in_its_order(tmp_path, ending, mode):
    files = [("./b/two.txt", b"two\r\n"), ("./one.txt", b"old"), ("./._one.txt", b"\0\5"), ("./e.txt", b"")]
    files += [("./one.txt", b"new"), ("caf\udce9.txt", b"x")]
    path = tarred(tmp_path / f"books.{ending}", files, mode)
    assert read(path) == ["two\n", "new", "x"]
    assert found(path).name == "books" and "skipped 1 empty file (e.txt)" in found(path).listing.row()
    assert found(path).identity != found(tarred(path, files[:1], mode)).identity


def test_tar_archive_has_splits_and_tables(tmp_path):
    rows = [("x/train.csv", b"text\na b\n"), ("x/test.csv.gz", gzip.compress(b"text\nc d\n"))]
    path = tarred(tmp_path / "a.tar.gz", rows, "w:gz")
    assert read(path) == ["a b"] and read(path, train_split="test") == ["c d"]


@pytest.mark.parametrize("kept", [1500, 1024, 700, 512, 100])
def test_truncated_tar_archive_is_an_error(tmp_path, kept):
    path = tarred(tmp_path / "a.tar", [("a.txt", b"one"), ("b.txt", b"two" * 200)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar archive: .*\.$"):
        read(path)
    gz = tarred(tmp_path / "a.tgz", [("a.txt", random.Random(0).randbytes(5000))], "w:gz")
    gz.write_bytes(gz.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.tgz cannot be read as a tar archive: .*\.$"):
        read(gz)


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a.txt"])
def test_tar_archive_with_a_file_outside_of_itself_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="is not one inside the archive"):
        found(tarred(tmp_path / "a.tar", [(name, b"text")]))


def test_links_in_a_tar_archive_are_not_followed(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(DataError, match="contains no files"):
        found(path)


def test_glob_of_archives_reads_their_files(tmp_path):
    tarred(tmp_path / "takeout-1.tgz", [("a.txt", b"one")], "w:gz")
    zipped(tmp_path / "takeout-2.zip", zipfile.ZIP_DEFLATED, two="two")
    assert read(tmp_path / "takeout-*") == ["one", "two"]


def zipped(path, method, **members):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.txt", content)
    return path


def assert_bomb(path):
    with pytest.raises(DataError, match=r"more than 200 times its size, as a decompression bomb") as error:
        open_corpus(DataConfig(dataset=str(path)))
    assert "\n" not in str(error.value) and path.name in str(error.value)
    left = [file for file in (path.parent / "cache").rglob("*") if file.is_file()]
    assert all(file.parent.name in ("locks", "known") for file in left), left


@pytest.mark.parametrize("letter", [b"\0", b"a"])
@pytest.mark.parametrize("kind", COMPRESS)
def test_a_decompression_bomb_is_an_error(small_bombs, tmp_path, kind, letter):
    path = tmp_path / f"a.txt.{kind}"
    path.write_bytes(COMPRESS[kind](letter * (40 << 20)))
    assert_bomb(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_a_bomb_is_an_error(small_bombs, tmp_path, method):
    assert_bomb(zipped(tmp_path / "a.zip", method, good="text " * 1000, bomb=b"a" * (40 << 20)))


def test_small_bombs_in_an_archive_add_up(small_bombs, tmp_path):
    parts = {f"part{number}": b"a" * (1 << 20) for number in range(40)}
    assert_bomb(zipped(tmp_path / "a.zip", zipfile.ZIP_LZMA, **parts))


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_bomb_within_an_archive_is_an_error(small_bombs, tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"a.txt.{kind}", COMPRESS[kind](b"a" * (40 << 20)))
    assert_bomb(tmp_path / "a.zip")


def test_a_tar_archive_that_is_a_bomb_is_an_error(small_bombs, tmp_path):
    assert_bomb(tarred(tmp_path / "a.tgz", [("a.txt", b"a" * (40 << 20))], "w:gz"))


@pytest.mark.parametrize("kind", COMPRESS)
def test_small_bombs_within_an_archive_add_up(small_bombs, tmp_path, kind):
    bomb = COMPRESS[kind](b"a" * (1 << 20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"a{number}.txt.{kind}", bomb)
    assert_bomb(tmp_path / "a.zip")


def test_reading_an_archive_again_does_not_add_up(small_bombs, tmp_path):
    text = "a" * (1 << 19)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt.gz", gzip.compress(text.encode()))
    assert [read(tmp_path / "a.zip") for _ in range(5)] == [[text]] * 5


def test_a_parquet_file_that_is_a_bomb_is_an_error(small_bombs, tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(bytes(40 << 20)))
    assert_bomb(tmp_path / "a.parquet.gz")


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_very_regular_text_is_no_bomb(small_bombs, tmp_path, kind):
    text = "".join(f"{'the same words again, ' * 50}{number}\n" for number in range(2000))
    if kind == "gz":
        path = tmp_path / "a.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path = zipped(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, a=text)
    assert 100 < len(text) / path.stat().st_size < 200
    assert read(path) == [text]


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
        DataError, match=r"no column of t contains text: n \(1\); --text-column reads one anyway"
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
from lm.cli.main import script
script("train")
"""


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
