"""Processes that are forked through a program in place of Python behave as those of Python do."""

import os
import subprocess
import time

import pytest

from tests.processes import forking_python

CODE = """
import os, sys, time
print(sys.argv[1:], sys.stdin, os.environ["PLACE"], os.getcwd(), "torch" in sys.modules, sys.executable)
if sys.argv[1] == "die":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "inherit":
    print(os.read(int(sys.argv[2]), 9))
if sys.argv[1] == "sleep":
    print(os.getpid(), flush=True)
    time.sleep(60)
sys.exit(3)
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(CODE)
    return [forking_python(), "-P", str(tmp_path / "program.py")]


def test_it_has_the_arguments_streams_environment_and_folder(command, tmp_path):
    result = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command, "x", "y z"], capture_output=True, text=True
    )
    assert result.stdout == f"['x', 'y z'] None here {tmp_path} True {command[0]}\n"
    assert (result.returncode, result.stderr) == (3, "")


def test_it_has_the_open_files(command):
    ours, theirs = os.pipe()
    os.write(theirs, b"inherited")
    result = subprocess.run([*command, "inherit", str(ours)], capture_output=True, pass_fds=[ours])
    assert result.stdout.endswith(b"b'inherited'\n")
    os.close(ours)
    os.close(theirs)


def test_it_ends_by_its_signal_and_with_what_started_it(command):
    assert subprocess.run([*command, "die"], stdout=subprocess.DEVNULL).returncode == -9
    with subprocess.Popen([*command, "sleep"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        number = int(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == b""  # the end of the fork, too
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{number}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_code_is_run_by_python(command):
    result = subprocess.run(
        [command[0], "-c", "import sys; print('torch' in sys.modules)"], capture_output=True
    )
    assert result.stdout == b"False\n"
