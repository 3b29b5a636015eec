"""Uploaded texts are copied, get harmless names, and are stored once; anything but text is rejected."""

import os
import threading

import pytest
from hypothesis import given, settings, strategies as st

from app.jobs.uploads import Uploads, safe_name
from lm import saving
from lm.errors import UserError


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "models", max_size=5000, max_total_size=9000)


def test_an_upload_is_copied_and_stored_once(uploads, upload, tmp_path):
    file = tmp_path / "My notes.md"
    file.write_text("naïve 中文\n")
    text = uploads.add(file)
    file.unlink()
    assert text.path.read_text() == "naïve 中文\n" and text.name == "My notes.md.txt"
    assert upload(uploads, "naïve 中文\n", "other.txt") == text
    assert uploads.all() == [text] and uploads.get(text.dataset) == text
    other = upload(uploads, "another")
    assert {t.id for t in uploads.all()} == {text.id, other.id}
    text.path.unlink()
    assert uploads.all() == [other]
    with pytest.raises(UserError, match="upload it again"):
        uploads.get(text.dataset)


def test_texts_named_like_the_files_of_a_model_are_not_a_model(uploads, upload, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        upload(uploads, f'"{name}"', name)
    assert saving.models_in(tmp_path / "models") == [] and saving.models_in(uploads.folder) == []
    assert not saving.is_model(uploads.folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"x" * 5001, "too large"),
        (b"caf\xe9", "not UTF-8 text"),
        (b"caf\xc3", "not UTF-8 text"),
        (b"a\0b", "zero bytes"),
        (b"\x1f\x8b\x08\x00", "not UTF-8 text"),
    ],
)
def test_anything_but_text_is_rejected_and_leaves_no_file(uploads, tmp_path, data, message):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(UserError, match=message):
        uploads.add(tmp_path / "x.txt")
    assert uploads.all() == [] and [n for n in os.listdir(uploads.folder) if n != "lock"] == []


def test_utf_16_with_a_byte_order_mark_is_text(uploads, tmp_path):
    (tmp_path / "x.txt").write_text("naïve", encoding="utf-16")
    assert uploads.add(tmp_path / "x.txt").size == 12


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


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b.TXT", "a b.txt"),
        ("C:\\docs\\notes.md", "notes.md.txt"),
        ("../../etc/passwd", "passwd.txt"),
        (".hidden", "hidden.txt"),
        ("...", "text.txt"),
        ("", "text.txt"),
        ("中文 小说.txt", "中文 小说.txt"),
        ("<script>.csv", "script.csv"),
        ("a\nb\0c.jsonl", "a b c.jsonl"),
        ("-rf.txt", "rf.txt"),
        ("data.tar.gz", "data.tar.gz.txt"),
    ],
)
def test_names_are_made_harmless(name, safe):
    assert safe_name(name) == safe


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_any_name_becomes_a_harmless_one(name):
    safe = safe_name(name)
    assert "/" not in safe and "\\" not in safe and not safe.startswith((".", "-")) and safe.isprintable()
    assert len(safe.encode()) <= 255 and safe.endswith((".txt", ".json", ".jsonl", ".csv", ".tsv"))
