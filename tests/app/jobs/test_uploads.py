"""Uploaded texts: copied, named harmlessly, kept once, and nothing but texts."""

import os
import threading

import pytest
from hypothesis import given, settings, strategies as st

from app.jobs.uploads import Texts, safe_name
from lm import saving
from lm.errors import UserError


@pytest.fixture
def texts(tmp_path):
    return Texts(tmp_path / "models", largest=5000, largest_in_all=9000)


def test_an_upload_is_copied_and_kept_once(texts, tmp_path):
    upload = tmp_path / "My notes.md"
    upload.write_text("naïve 中文\n")
    text = texts.add_file(upload)
    upload.unlink()
    assert text.path.read_text() == "naïve 中文\n" and text.name == "My notes.md.txt"
    assert texts.add("naïve 中文\n", "other.txt") == text
    assert texts.all() == [text] and texts.get(text.dataset) == text
    other = texts.add("another")
    assert other.name == "pasted.txt" and {t.id for t in texts.all()} == {text.id, other.id}
    texts.remove(text.dataset)
    assert texts.all() == [other]
    with pytest.raises(UserError, match="upload it again"):
        texts.get(text.dataset)


def test_texts_that_are_called_like_the_files_of_a_model_make_none(texts, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        texts.add(f'"{name}"', name)
    assert saving.models_in(tmp_path / "models") == [] and saving.models_in(texts.folder) == []
    assert not saving.is_model(texts.folder)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"x" * 5001, "too large"),
        (b"caf\xe9", "no text in UTF-8"),
        (b"caf\xc3", "no text in UTF-8"),
        (b"a\0b", "zero bytes"),
        (b"\x1f\x8b\x08\x00", "no text"),
    ],
)
def test_what_is_no_text_is_refused_and_leaves_nothing(texts, tmp_path, data, says):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(UserError, match=says):
        texts.add_file(tmp_path / "x.txt")
    assert texts.all() == [] and [n for n in os.listdir(texts.folder) if n != "lock"] == []


def test_text_in_utf_16_is_one_where_it_says_so(texts, tmp_path):
    (tmp_path / "x.txt").write_text("naïve", encoding="utf-16")
    assert texts.add_file(tmp_path / "x.txt").size == 12


def test_all_texts_together_have_a_limit(texts):
    texts.add("x" * 5000)
    with pytest.raises(UserError, match="delete some first"):
        texts.add("y" * 5000)


def test_links_pipes_and_folders_are_not_followed(texts, tmp_path):
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder").mkdir()
    for name in ("link.txt", "folder", "absent"):
        with pytest.raises(UserError, match="cannot be read"):
            texts.add_file(tmp_path / name)
    with pytest.raises(UserError, match="is empty"):
        texts.add_file(tmp_path / "pipe.txt")


def test_the_same_text_from_many_at_once_is_kept_once(texts):
    threads = [threading.Thread(target=texts.add, args=("the same", f"{n}.txt")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (text,) = texts.all()
    assert os.listdir(text.path.parent) == [text.name]
    assert sorted(os.listdir(texts.folder)) == sorted([text.id, "lock"])


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
def test_whatever_a_file_is_called_its_name_is_one(name):
    safe = safe_name(name)
    assert "/" not in safe and "\\" not in safe and not safe.startswith((".", "-")) and safe.isprintable()
    assert len(safe.encode()) <= 255 and safe.endswith((".txt", ".json", ".jsonl", ".csv", ".tsv"))
