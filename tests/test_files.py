"""Writing is all or nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lm.files import folder_or_previous, replace_folder, replacing, write_text
from tests.conftest import ROOT


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_the_old_one_alone(tmp_path):
    def half(folder):
        (folder / "a").write_text("half")
        raise ZeroDivisionError

    replace_folder(tmp_path / "c", lambda folder: (folder / "a").write_text("old"))
    with pytest.raises(ZeroDivisionError):
        replace_folder(tmp_path / "c", half)
    assert (folder_or_previous(tmp_path / "c") / "a").read_text() == "old"


WRITER = """
import sys
from pathlib import Path
from lm.files import replace_folder
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
def test_a_kill_at_any_moment_leaves_one_whole_folder(tmp_path, wait):
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
