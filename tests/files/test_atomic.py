"""Writing is atomic."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from lm.files.atomic import append_text, folder_or_previous, replace_folder, replacing, write_text
from tests.conftest import ROOT


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


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
