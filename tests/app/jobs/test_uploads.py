"""Uploads are copied, get harmless names, and are stored once; what is clearly not text is rejected."""

import gzip
import os
import tarfile
import threading
import zipfile

import pytest
from hypothesis import given, settings, strategies as st

from app.jobs.uploads import MAX_PASTED, Uploads, safe_name
from lm.errors import UserError
from lm.storage import model_folder


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "models", max_size=5000, max_total_size=9000, max_unpacked_size=20_000)


def test_an_upload_is_copied_and_stored_once(uploads, upload, tmp_path):
    file = tmp_path / "My notes.md"
    file.write_text("naïve 中文\n")
    text = uploads.add(file)
    file.unlink()
    assert text.path.read_text() == "naïve 中文\n" and text.name == "My notes.md"
    assert upload(uploads, "naïve 中文\n", "My notes.MD") == text
    assert uploads.all() == [text] and uploads.get(text.dataset) == text
    other = upload(uploads, "another")
    assert {t.id for t in uploads.all()} == {text.id, other.id}
    # The same content is another text if it has another name.
    for name in ("second name.txt", "other.csv"):
        again = upload(uploads, "another", name)
        assert again.id != other.id and uploads.get(again.dataset).name == name
        again.path.unlink()
    text.path.unlink()
    assert uploads.all() == [other]
    with pytest.raises(UserError, match="upload it again"):
        uploads.get(text.dataset)


def test_texts_named_like_the_files_of_a_model_are_not_a_model(uploads, upload, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        upload(uploads, f'"{name}"', name)
    assert model_folder.models_in(tmp_path / "models") == [] and model_folder.models_in(uploads.folder) == []
    assert not model_folder.is_model(uploads.folder)


JPEG, GZIP = b"\xff\xd8\xff\xe0" + bytes(range(256)), gzip.compress(b"x" * 50_000)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.txt", b"", "x.txt is empty"),
        ("x.txt", b"x" * 5001, "x.txt is too large: a text can have"),
        ("x.jpg", JPEG, "^x.jpg looks like a JPEG image, not text"),
        ("x.csv", b"%PDF-1.4\n\xe2\xe3", "x.csv looks like a PDF document, not text"),
        ("x.txt", GZIP, "x.txt looks like a gzip archive, not text"),
        ("x.txt.gz", GZIP, "x.txt.gz is too large: it can have .* when unpacked"),
        ("x.txt.gz", GZIP[:-9], "^x.txt.gz is damaged"),
        ("x.zip", b"PK\x03\x04", "^x.zip cannot be read as a zip archive"),
        ("x.zip", b"PK\x05\x06" + bytes(18), "^x.zip is empty"),
        ("x.tar", bytes(1024), "^x.tar is empty"),
        ("x.txt.gz", gzip.compress(b""), "^x.txt.gz is empty"),
        ("x.txt.gz", b"text", "^x.txt.gz is not a valid gzip file"),
        ("x?.txt.gz", b"text", r"^x\?\.txt\.gz is not a valid gzip file"),  # stored under another name
        ("x.tar", b"text", "^x.tar cannot be read as a tar archive"),
        ("x.tar.gz", gzip.compress(b"text"), "^x.tar.gz cannot be read as a tar archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),  # gzip data contains the time
)
def test_what_is_clearly_no_text_is_rejected_and_leaves_no_file(uploads, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        uploads.add(tmp_path / name)
    assert "partial" not in str(caught.value)
    assert uploads.all() == [] and [n for n in os.listdir(uploads.folder) if n != "lock"] == []


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16", "utf-16-le", "utf-32-be", "cp037"])
def test_a_text_may_have_any_encoding(uploads, tmp_path, encoding):
    data = "naïve café\n".encode(encoding, "replace")
    (tmp_path / "x.txt").write_bytes(data)
    assert uploads.add(tmp_path / "x.txt").path.read_bytes() == data


def test_the_files_of_an_archive_are_limited_together(uploads, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(5):
            archive.writestr(f"{n}.txt", "x" * 5000)
    with pytest.raises(UserError, match=r"^x\.zip is too large"):
        uploads.add(tmp_path / "x.zip")
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.add(tmp_path / "x.zip", "x.zip")
    assert uploads.add(tmp_path / "x.tgz").name == "x.tgz"


def test_the_total_size_is_limited(uploads, upload):
    upload(uploads, "x" * 5000)
    with pytest.raises(UserError, match="delete some from"):
        upload(uploads, "y" * 5000)


def test_links_pipes_and_folders_are_not_read(uploads, tmp_path):
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder").mkdir()
    for name in ("link.txt", "folder", "absent"):
        with pytest.raises(UserError, match="cannot read the upload"):
            uploads.add(tmp_path / name)
    with pytest.raises(UserError, match="is empty"):
        uploads.add(tmp_path / "pipe.txt")


def test_the_same_text_uploaded_concurrently_is_stored_once(uploads, tmp_path):
    (tmp_path / "same.txt").write_text("the same")
    threads = [threading.Thread(target=uploads.add, args=(tmp_path / "same.txt",)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (text,) = uploads.all()
    assert os.listdir(text.path.parent) == [text.name]
    assert sorted(os.listdir(uploads.folder)) == sorted([text.id, "lock"])


def test_a_pasted_text_is_named_after_its_beginning(uploads):
    text = uploads.add_pasted("It was a dark\nand stormy night; the rain fell.\n")
    assert (
        text.name == "It was a dark and stormy night.txt" and text.title == "It was a dark and stormy night"
    )
    assert text.path.read_text() == "It was a dark\nand stormy night; the rain fell.\n"
    assert uploads.add_pasted("?!\ud800 ").name == "text.txt"
    with pytest.raises(UserError, match="upload it as a file"):
        uploads.add_pasted("x" * (MAX_PASTED + 1))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b.TXT", "a b.txt"),
        ("C:\\docs\\notes.md", "notes.md"),
        ("a.PY", "a.PY.txt"),
        ("a.Parquet", "a.parquet"),
        ("a.CSV.GZ", "a.csv.gz"),
        ("my texts.zip", "my texts.zip"),
        (".gz", "text.gz"),
        ("../../etc/passwd", "passwd.txt"),
        (".hidden", "hidden.txt"),
        ("...", "text.txt"),
        ("", "text.txt"),
        ("中文 小说.txt", "中文 小说.txt"),
        ("<script>.csv", "script.csv"),
        ("a\nb\0c.jsonl", "a b c.jsonl"),
        ("-rf.txt", "rf.txt"),
        ("data.tar.gz", "data.tar.gz"),
        ("Data.TAR", "Data.tar"),
        ("My novel (draft 2).txt", "My novel (draft 2).txt"),
        ("Q&A, [2] {x}'s.txt", "Q&A, [2] {x}'s.txt"),
    ],
)
def test_names_are_made_harmless(name, safe):
    assert safe_name(name) == safe


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_any_name_becomes_a_harmless_one(name):
    safe = safe_name(name)
    assert "/" not in safe and "\\" not in safe and not safe.startswith((".", "-")) and safe.isprintable()
    assert len(safe.encode()) <= 255
    assert "." in safe and safe_name(safe) == safe
