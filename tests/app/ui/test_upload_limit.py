"""The disk space of uploads is bounded, and failed ones leave nothing."""

import os
import time

import pytest

from app.ui.upload_limit import _MIN_SIZE, UploadLimit, mark_as_copied
from lm.errors import UserError

SIZE = 10 * _MIN_SIZE


@pytest.fixture
def limit(tmp_path):
    return UploadLimit(tmp_path, set(), 4 * SIZE)


def finish(limit, name, age=0.0):
    """Upload a file, as Gradio stores it."""
    with limit.reserved(SIZE):
        path = limit._folder / name / "text.txt"
        path.parent.mkdir()
        path.write_bytes(b"a" * SIZE)
        os.utime(path, (time.time() - age,) * 2)
        limit._finished.add(str(path))
    return path


def test_unfinished_uploads_count(limit):
    with limit.reserved(3 * SIZE):
        with pytest.raises(UserError, match="too many uploads"), limit.reserved(SIZE + 1):
            pass
        with limit.reserved(SIZE):
            pass
    with limit.reserved(4 * SIZE):
        pass


def test_recent_uploads_count_and_older_ones_make_room(limit):
    old, older = finish(limit, "old", age=100), finish(limit, "older", age=200)
    new = [finish(limit, name) for name in ("a", "b")]
    last = finish(limit, "c")
    assert not older.exists() and old.exists()
    finish(limit, "d")
    assert not old.exists() and all(path.exists() for path in (*new, last))
    with pytest.raises(UserError), limit.reserved(1):
        pass
    mark_as_copied(str(new[1]))
    with limit.reserved(SIZE):
        pass
    assert [path.exists() for path in new] == [True, False] and str(new[1]) not in limit._finished
    new[0].unlink()
    with limit.reserved(SIZE):
        pass
    assert str(new[0]) not in limit._finished


def test_many_small_uploads_count(limit):
    with limit.reserved(3 * SIZE):
        for number in range(10):
            path = limit._folder / f"{number}.txt"
            path.write_bytes(b"")
            limit._finished.add(str(path))
        with pytest.raises(UserError), limit.reserved(1):
            pass


def test_a_failed_upload_leaves_nothing(limit, tmp_path):
    kept = tmp_path / "abc" / "tmp_model.zip"
    kept.parent.mkdir()
    kept.write_bytes(b"a download")
    with pytest.raises(ConnectionError), limit.reserved(SIZE):
        (tmp_path / "tmpabcd").write_bytes(b"half")
        with limit.reserved(SIZE):
            pass
        assert (tmp_path / "tmpabcd").exists()  # another upload is unfinished
        raise ConnectionError
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
