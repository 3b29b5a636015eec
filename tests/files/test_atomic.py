"""Writing is atomic."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lm.errors import UserError
from lm.files import atomic
from lm.files.atomic import (
    append_text,
    check_output,
    folder_or_previous,
    replace_folder,
    replacing,
    write_text,
    writing,
)
from tests.conftest import ROOT


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_two_threads_write_the_same_file(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_text, path, "second").result()
        assert first.read_text() == "first" and path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "cannot write a.txt: No space left on device; free some space, or choose a folder on"),
        (errno.EACCES, "cannot write a.txt: Permission denied; choose an existing, writable folder."),
        (errno.EROFS, "cannot write a.txt: Read-only file system; choose an existing, writable folder."),
        (errno.EEXIST, "cannot write a.txt: it is a file; choose an existing, writable folder."),
    ],
)
def test_an_error_names_the_file_of_the_user_and_what_to_do(tmp_path, monkeypatch, number, message):
    def fail(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atomic, "flush_to_disk", fail)
    with pytest.raises(UserError, match=f"^{message}"), writing("a.txt"):
        write_text("a.txt", "new")
    with pytest.raises(OSError, match="partial"):  # on which training relies
        write_text("a.txt", "new")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_an_error_of_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    message = r"^cannot write 'a\\\w+b': no file can have this name; choose another name\.$"
    with pytest.raises(UserError, match=message), writing(name):
        write_text(name, "new")
    assert not os.listdir(tmp_path)


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path):
    check_output(tmp_path / "a.txt")
    for file in (tmp_path, tmp_path / "no/where.txt", tmp_path / "a.txt/b"):
        with pytest.raises(UserError, match=r"cannot write .*: run the command in a writable folder\.$"):
            check_output(file, "run the command in a writable folder")


def test_failed_folder_keeps_the_old_one(tmp_path):
    def half(folder):
        (folder / "a").write_text("half")
        raise ZeroDivisionError

    replace_folder(tmp_path / "c", lambda folder: (folder / "a").write_text("old"))
    with pytest.raises(ZeroDivisionError):
        replace_folder(tmp_path / "c", half)
    assert (folder_or_previous(tmp_path / "c") / "a").read_text() == "old"


@pytest.mark.parametrize("function", ["rename", "fsync"])
@pytest.mark.parametrize("call", [1, 2])
def test_interrupting_any_system_call_leaves_a_whole_folder(tmp_path, monkeypatch, function, call):
    """A kill right before the n-th call of a system function."""

    def fill(text):
        return lambda folder: (folder / "a").write_text(text)

    replace_folder(tmp_path / "c", fill("old"))
    calls, real = [], getattr(os, function)

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, function, stop)
    with suppress(KeyboardInterrupt):
        replace_folder(tmp_path / "c", fill("new"))
    assert (folder_or_previous(tmp_path / "c") / "a").read_text() in ("old", "new")
    monkeypatch.undo()
    replace_folder(tmp_path / "c", fill("newer"))
    assert (folder_or_previous(tmp_path / "c") / "a").read_text() == "newer"


WRITER = """
import sys
from pathlib import Path
from lm.files.atomic import replace_folder
number = 0
while True:
    def fill(folder):
        for name in "ab":
            (folder / name).write_text(str(number) * 10000)
    replace_folder(Path(sys.argv[1]), fill)
    number += 1
    if number == 1: print("ready", flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.003, 0.011, 0.02, 0.05])
def test_kill_at_any_time_leaves_a_whole_folder(tmp_path, wait):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "c")], cwd=ROOT, stdout=subprocess.PIPE
    )
    writer.stdout.readline()
    time.sleep(wait)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    folder = folder_or_previous(tmp_path / "c")
    a, b = (folder / "a").read_text(), (folder / "b").read_text()
    assert a == b
    assert len(a) >= 10000


def test_appending_to_a_full_disk_writes_nothing(tmp_path):
    path = tmp_path / "growing.txt"
    append_text(path, "whole\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            append_text(path, "too long for it\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_text(path, "again\n")
    assert path.read_text() == "whole\nagain\n"
