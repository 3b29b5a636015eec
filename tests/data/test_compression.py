"""All of a compressed file is read, or reading it is an error."""

import io
import random

import pytest

from lm.data.compression import compression_of, decompressed
from lm.errors import DataError
from tests.data.conftest import read
from tests.data.packed import COMPRESS

TEXT = "one\ntwo ääå\n" * 20_000


def unpacked(kind, raw):
    return decompressed(io.BytesIO(raw), compression_of(f"a.{kind}"))


@pytest.mark.parametrize("kind", COMPRESS)
def test_files_of_several_streams_are_read_whole(tmp_path, kind):
    parts = [TEXT[:100_000], "", TEXT[100_000:]]
    raw = b"".join(COMPRESS[kind](part.encode()) for part in parts)
    (tmp_path / f"a.txt.{kind}").write_bytes(raw)
    assert read(tmp_path / f"a.txt.{kind}") == [TEXT]


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_file_that_is_not_compressed_is_an_error_that_names_its_kind(tmp_path, kind):
    (tmp_path / f"a.txt.{kind}").write_text("not compressed")
    name = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}[kind]
    with pytest.raises(DataError, match=rf"a\.txt\.{kind} is not a valid {name} file\.$"):
        read(tmp_path / f"a.txt.{kind}")


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("more", [b"text", b"\0\0\0\0text", b"damaged stream"])
def test_a_file_that_continues_with_something_else_is_an_error(tmp_path, kind, more):
    good = COMPRESS[kind](TEXT.encode())
    rest = b"\0" + good[1:] if more == b"damaged stream" else more
    (tmp_path / f"a.txt.{kind}").write_bytes(good + rest)
    with pytest.raises(DataError, match=rf"a\.txt\.{kind} (is damaged: \S.*|is not a valid \w+ file)\.$"):
        read(tmp_path / f"a.txt.{kind}")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])  # in zstd, zeros are an error
def test_zeros_between_and_after_streams_are_padding(kind):
    part = COMPRESS[kind](b"text")
    for padding in (4, 1 << 17):
        assert unpacked(kind, part + bytes(padding) + part + bytes(padding)).read() == b"texttext"


@pytest.mark.parametrize("kind", COMPRESS)
def test_reading_begins_anywhere(kind):
    text = TEXT.encode()
    opened = unpacked(kind, COMPRESS[kind](text[:70_000]) + COMPRESS[kind](text[70_000:]))
    numbers = random.Random(0)
    for _ in range(20):
        begin, size = numbers.randrange(len(text) + 1000), numbers.choice([1, 1000, 100_000])
        opened.seek(begin)
        assert opened.read(size) == text[begin : begin + size]
        assert opened.tell() == min(begin + size, max(len(text), min(begin, len(text))))
