"""A file that unpacks to far more data than text would is an error."""

import gzip
import zipfile

import pytest

from lm.config.schema import DataConfig
from lm.data import archives
from lm.data.corpus import open_corpus
from lm.errors import DataError
from tests.data.conftest import read
from tests.data.packed import COMPRESS, tarred, zipped


@pytest.fixture
def small_bombs(monkeypatch, tmp_path):
    """Bombs of a size that is quick to make, and an empty cache."""
    monkeypatch.setattr(archives, "_ALWAYS_UNPACKED", 1 << 20)
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))


def assert_bomb(path):
    with pytest.raises(DataError, match=r"more than 200 times its size, as a decompression bomb") as error:
        open_corpus(DataConfig(dataset=str(path)))
    assert "\n" not in str(error.value) and path.name in str(error.value)
    left = [file for file in (path.parent / "cache").rglob("*") if file.is_file()]
    assert all(file.parent.name in ("locks", "known") for file in left), left


@pytest.mark.slow
@pytest.mark.parametrize("letter", [b"\0", b"a"])
@pytest.mark.parametrize("kind", COMPRESS)
def test_a_decompression_bomb_is_an_error(small_bombs, tmp_path, kind, letter):
    path = tmp_path / f"a.txt.{kind}"
    path.write_bytes(COMPRESS[kind](letter * (40 << 20)))
    assert_bomb(path)


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_a_bomb_is_an_error(small_bombs, tmp_path, method):
    assert_bomb(zipped(tmp_path / "a.zip", method, good="text " * 1000, bomb=b"a" * (40 << 20)))


def test_small_bombs_in_an_archive_add_up(small_bombs, tmp_path):
    parts = {f"part{number}": b"a" * (1 << 20) for number in range(40)}
    assert_bomb(zipped(tmp_path / "a.zip", zipfile.ZIP_LZMA, **parts))


@pytest.mark.slow
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
