"""Archives are read like folders."""

import gzip
import io
import os
import random
import stat
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from lm.data import archives
from lm.errors import DataError
from tests.data.conftest import found, read
from tests.data.packed import tarred, zipped


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


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_may_begin_with_the_folder_of_the_archive(tmp_path, kind):
    files = {"./a.txt": b"one", ".//b/c.txt": b"two", "././d.txt": b"three", "./.hidden": b"no"}
    files |= {"./b/.git/e.txt": b"no"}
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tarred(path, files.items())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    assert sorted(read(path)) == ["one", "three", "two"]


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
    with pytest.raises(DataError, match=r"books\.zip contains no files, or only hidden ones\.$"):
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
    archives.close_archives()
    assert read(tmp_path / "books.zip") == ["a third"]


TARS = [("tar", "w"), ("tar.gz", "w:gz"), ("TGZ", "w:gz"), ("tar.bz2", "w:bz2"), ("txz", "w:xz")]


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


def test_threads_that_read_one_tar_archive_do_not_disturb_each_other(tmp_path):
    files = [(f"{letter}.txt", letter.encode() * 300_000) for letter in "abcd"]
    path = tarred(tmp_path / "a.tar", files)
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(lambda _: read(path), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert texts == [[content.decode() for _, content in files]] * 8


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


def test_symbolic_links_in_a_zip_archive_are_not_text(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
        link = zipfile.ZipInfo("b.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a.txt")
    assert read(tmp_path / "a.zip") == ["text"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_hard_links_in_a_tar_archive_are_read_once(tmp_path, mode):
    files = [(".blobs/1", b"one"), ("./.blobs/2", b"two"), ("a.txt", b"three")]
    links = [("b.txt", "a.txt"), ("c.txt", ".blobs/1"), ("d.txt", ".blobs/2"), ("./e.txt", "./.blobs/2")]
    path = tmp_path / "a.tgz" if mode == "w:gz" else tmp_path / "a.tar"
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    assert read(path) == ["three", "one", "two"]


def test_glob_of_archives_reads_their_files(tmp_path):
    tarred(tmp_path / "takeout-1.tgz", [("a.txt", b"one")], "w:gz")
    zipped(tmp_path / "takeout-2.zip", zipfile.ZIP_DEFLATED, two="two")
    assert read(tmp_path / "takeout-*") == ["one", "two"]
