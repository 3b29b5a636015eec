"""Windows and macOS. On Linux, Windows is simulated (tests/windows/sitecustomize.py)."""

import ast
import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm.console import streams
from lm.files import atomic
from lm.files.atomic import portable_name, write_text
from tests.conftest import ROOT

WINDOWS = ROOT / "tests" / "windows"
SOURCES = sorted(
    path for folder in ("lm", "app", "benchmarks", "space") for path in (ROOT / folder).rglob("*.py")
)
# Modules that do not exist on Windows, or only there, and the files that import them where they exist.
CONFINED = {
    "fcntl": {"lm/files/locks.py"},
    "msvcrt": {"lm/files/locks.py"},
    "resource": {"app/resources.py", "app/jobs/trial_run.py", "lm/insight/regex_search.py"},
    **{name: set() for name in ("grp", "posix", "pty", "pwd", "readline", "termios", "tty", "winreg")},
}


def on_windows(script: str, folder: Path, **environment: str) -> str:
    """The output of a script in tests/windows, run in an empty folder, on Windows or as if on Windows."""
    (folder / "processes").mkdir()
    (folder / "work").mkdir()
    simulation = [str(WINDOWS)] if sys.platform == "linux" else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*simulation, str(ROOT)]),
        "WINDOWS_PROCESSES": str(folder / "processes"),
        "LM_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUTF8": "0",
        **environment,
    }
    command = [sys.executable, "-P", str(WINDOWS / script)]
    result = subprocess.run(command, cwd=folder / "work", env=environment, capture_output=True, timeout=300)
    output, errors = (text.decode("utf-8", "replace") for text in (result.stdout, result.stderr))
    assert result.returncode == 0, errors + output
    return output.replace("\r\n", "\n")


@pytest.mark.slow
def test_every_command_runs_with_an_old_console(tmp_path):
    output = on_windows("commands.py", tmp_path, PYTHONIOENCODING="cp437")
    assert "all done" in output
    assert "\\u6d77" in output  # what the console lacks


@pytest.mark.slow
def test_the_page_trains(tmp_path):
    output = on_windows("jobs.py", tmp_path)
    assert output.splitlines() == [
        "uploaded con_.txt" if sys.platform != "win32" else "uploaded console.txt",
        "stopped after a pause",
        "model aux_.x",
        "left .jobs .texts aux_.x",
    ]


def problems(path: str, code: str) -> list[str]:
    """What in a module depends on the system: default encodings and line ends, modules, and renames."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            found += [f"{path}:{node.lineno}: {what}" for what in problems_of_call(path, node)]
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        confined = (name for name in names if path not in CONFINED.get(name, [path]))
        found += [f"{path}:{node.lineno}: {name} does not exist everywhere" for name in confined]
    return found


def problems_of_call(path: str, call: ast.Call) -> Iterator[str]:
    function, options = call.func, {keyword.arg for keyword in call.keywords}
    name = getattr(function, "attr", getattr(function, "id", ""))
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    if (
        name == "open"
        and owner != "os"
        and (mode := mode_of(call, 1 if owner in ("", "io") else 0))
        and "b" not in mode
    ):
        if "encoding" not in options:
            yield "a text file is opened without an encoding"
        if not mode.startswith("r") and "newline" not in options:
            yield "a text file is written without newline="
    if name in ("read_text", "write_text") and owner:
        if "encoding" not in options and len(call.args) < (1 if name == "read_text" else 2):
            yield f"{name} without an encoding"
        if name == "write_text" and "newline" not in options:
            yield "write_text without newline="
    if owner == "subprocess" and {"text", "universal_newlines"} & options and "encoding" not in options:
        yield "the output of a process is read without an encoding"
    if owner == "os" and name in ("fsync", "rename", "replace") and path != "lm/files/atomic.py":
        yield f"os.{name} outside lm/files/atomic.py"


def mode_of(call: ast.Call, position: int) -> str:
    """The mode in which a call opens a file; '' if it does not, as `webbrowser.open("http://...")`."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position:]
    mode = getattr(given[0], "value", "") if given else "r"
    return mode if re.fullmatch("[rwaxbt+]{1,3}", str(mode)) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_depends_on_the_encoding_or_the_system(path):
    assert problems(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "open('a')",
        "open('a', 'w', encoding='utf-8')",
        "path.open()",
        "path.open('w', encoding='utf-8')",
        "path.read_text()",
        "path.write_text('a', newline='')",
        "path.write_text('a', encoding='utf-8')",
        "subprocess.run(['a'], text=True)",
        "os.replace('a', 'b')",
        "os.fsync(1)",
        "import fcntl",
        "from resource import getrlimit",
    ],
)
def test_what_depends_on_the_system_is_found(code):
    assert len(problems("lm/x.py", code)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "open('a', 'rb')",
        "open('a', encoding='utf-8')",
        "path.read_text('utf-8')",
        "os.open('a', os.O_RDONLY)",
    ],
)
def test_what_does_not_is_not(code):
    assert problems("lm/x.py", code) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("boat", "boat"),
        ("海 a.b", "海 a.b"),
        ('a:b?"c"', "a-b--c-"),
        ("a/b\\c", "a-b-c"),
        ("aux.txt", "aux_.txt"),
        ("CON", "CON_"),
        ("console", "console"),
        ("lpt1.tar.gz", "lpt1_.tar.gz"),
        ("dots. .", "dots"),
        ("caf\udce9", "caf\udce9"),
        ("海" * 100, "海" * 66),
    ],
)
def test_names_are_valid_everywhere(text, name):
    assert portable_name(text) == name


def test_a_file_that_another_program_has_open_for_a_moment_is_replaced(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    refusals, real = [1, 2, 3], os.replace

    def busy(*paths):
        if refusals:
            refusals.pop()
            raise PermissionError(errno.EACCES, "in use")
        real(*paths)

    monkeypatch.setattr(atomic.os, "replace", busy)
    monkeypatch.setattr(atomic.sys, "platform", "win32")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text("utf-8") == "new" and not refusals
    monkeypatch.setattr(atomic, "_PATIENCE", 0.05)
    refusals += range(100)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a", "newer")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text("utf-8") == "new"


def test_elsewhere_a_refusal_is_final():
    attempts = []

    def refuse():
        attempts.append(1)
        raise PermissionError

    with pytest.raises(PermissionError):
        atomic.patiently(refuse)
    assert len(attempts) == 1 or sys.platform == "win32"


def test_a_reader_that_has_closed_a_pipe_is_recognized_on_windows(monkeypatch):
    """A write then fails with EINVAL there."""

    class Closed(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(streams.sys, "platform", "win32")
    with pytest.raises(BrokenPipeError):
        streams.StandardStream(Closed()).write(b"a")


def test_flushing_works_where_it_needs_a_file_that_is_open_for_writing(tmp_path):
    """As on Windows; tests/conftest.py lets os.fsync be that strict in all tests."""
    (tmp_path / "a").write_text("a")
    with open(tmp_path / "a", "rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        os.fsync(file.fileno())
    atomic.flush_to_disk(tmp_path / "a")
