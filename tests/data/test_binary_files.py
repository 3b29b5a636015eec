"""Files that are not text are an error that says what to do; text that begins like one of them is read."""

import gzip
import io
import random
import sqlite3
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.data.binary_files import binary_kind, known_kind
from lm.errors import DataError
from tests.data.conftest import found, read


def tar(path, mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 40
            archive.addfile(info, io.BytesIO(b"The sea was calm and a boat went out.\n\n\n"))
    return path


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_a_tar_archive_of_another_name_is_an_error(tmp_path, name, format):
    with pytest.raises(DataError, match=f"{name} looks like a tar archive, not text: unpack it"):
        read(tar(tmp_path / name, format=format))


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_a_tar_archive_in_a_folder_is_skipped(tmp_path, name, mode):
    tar(tmp_path / name, mode)
    with pytest.raises(DataError, match="skipped 1 binary file"):
        read(tmp_path)


def test_an_old_tar_archive_is_known_by_its_checksum(tmp_path):
    raw = bytearray(tar(tmp_path / "a.tar", format=tarfile.USTAR_FORMAT).read_bytes())
    raw[257:265] = bytes(8)
    assert not known_kind(raw)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    assert known_kind(raw) == "a tar archive"


def pickled(path):
    path.write_bytes(b"\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94(\x8c\x06a text\x94K\x01e.")


def array(path):
    with open(path, "wb") as file:
        np.save(file, np.arange(9))


def database(path):
    with sqlite3.connect(path) as opened:
        opened.execute("create table texts (text)")


def parquet(path):
    pq.write_table(pa.table({"text": ["a text"]}), path)


def arrow(path):
    table = pa.table({"text": ["a text"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def compressed(path):
    path.write_bytes(gzip.compress(b"a text"))


def document(path):
    path.write_bytes(b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\n")


def noise(path):
    path.write_bytes(random.Random(0).randbytes(9999))


@pytest.mark.parametrize(
    ("write", "kind", "advice"),
    [
        (pickled, "a pickled object", "save its text as a file first"),
        (array, "an array", "save its text as a file first"),
        (database, "a database", "save its text as a file first"),
        (parquet, "a Parquet file", "rename it to end in .parquet"),
        (arrow, "an Arrow file", "rename it to end in .arrow"),
        (compressed, "a gzip archive", "unpack it first"),
        (document, "a PDF document", "save it as text first"),
        (noise, "a binary file", "choose a text file"),
    ],
)
@pytest.mark.parametrize("encoding", [None, "latin-1"])
@pytest.mark.parametrize("name", ["file", "file.txt", "file.csv", "file.jsonl"])
def test_a_binary_file_is_an_error_whatever_its_name_and_encoding(
    tmp_path, write, kind, advice, encoding, name
):
    write(tmp_path / name)
    with pytest.raises(DataError) as error:
        read(tmp_path / name, encoding=encoding, encoding_errors="replace")
    assert str(error.value) == f"{tmp_path / name} looks like {kind}, not text: {advice}."


def test_the_running_program_is_not_text(tmp_path):
    with pytest.raises(DataError, match="looks like a program"):
        read(sys.executable, encoding="latin-1")


@pytest.mark.parametrize(
    "text",
    [
        "BMW fährt über Land",
        "MZ é uma sigla",
        "ID3 est un format, là",
        "RIFF à gogo",
        "OTTO schläft",
        "abcdftyp é",
        "ORC\nShrek à la plage",
        "Obj",
        "GIF89a était un format",
        "PAR1S en été",
        "BZh9 était",
        "column\x1fwith\x1eseparators\x1dand é\0",
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-16-le", "utf-32-be"])
def test_text_that_begins_like_another_format_is_text(tmp_path, text, encoding):
    assert known_kind(text.encode(encoding)) is None
    (tmp_path / "a.txt").write_bytes((text + "\n").encode(encoding))
    assert read(tmp_path / "a.txt", encoding=encoding) == [text + "\n"]


def test_text_that_mentions_every_control_character_is_text(tmp_path):
    text = "".join(
        f"{code} is {chr(code)!r}, that is {chr(code)}, a control character\n" for code in range(32)
    )
    text = text.replace("\r", "")
    (tmp_path / "a.txt").write_bytes((text + "plain text " * 300).encode())
    assert read(tmp_path / "a.txt") == [text + "plain text " * 300]


def test_a_compressed_standard_input_is_named(tmp_path, monkeypatch):
    for raw in (gzip.compress(b"a text"), b"caf\xe9"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        with pytest.raises(DataError, match=r"^standard input (looks like a gzip archive|is not UTF-8)"):
            read("-")


def test_a_parquet_file_with_its_name_is_read(tmp_path):
    parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["a text"]
    assert found(tmp_path / "a.parquet").kind == "parquet"
    assert binary_kind((tmp_path / "a.parquet").read_bytes()) == "a Parquet file"


def test_the_end_of_a_short_text_of_dos_is_no_sign_of_a_binary_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_bytes(b"The sea was calm.\r\nA boat went out.\r\n\x1a")
    assert len(read(tmp_path)) == 2
    assert binary_kind(b"\x1a" + bytes(range(32))) is not None


@pytest.mark.parametrize("before", [b"", b"\n", b"\r\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_pdf_document_may_begin_with_blank_lines(before):
    assert known_kind(before + b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n") == "a PDF document"
    assert known_kind(before + b"%PDF- is how such files begin") is None
