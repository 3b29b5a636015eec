"""Processes that are forked, on Linux, from one that has imported torch (tests/fork_server.py)."""

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the scripts import at the start; what they import only when they need it is not here.
LIBRARIES = ("torch", "numpy", "safetensors.torch", "tokenizers", "yaml", "filelock", "rich.progress")


@functools.cache
def fork_server(*libraries: str) -> Path:
    """The socket of a new process that has imported `libraries`. It ends before this one."""
    path = Path(tempfile.mkdtemp(prefix="lm-tests-")) / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(100)
        file = Path(__file__).with_name("fork_server.py")
        command = [sys.executable, "-P", str(file), str(listener.fileno()), *libraries]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def end():
        server.stdin.close()
        server.wait()
        shutil.rmtree(path.parent)

    atexit.register(end)
    return path


@functools.cache
def forking_python() -> str:
    """A program that takes the arguments of Python and forks a process that runs what they name, as
    tests/fork_client.py says. In that process it is `sys.executable`."""
    server = fork_server(*LIBRARIES)
    client = Path(__file__).with_name("fork_client.py")
    program = server.with_name("python")
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -IS '{client}' '{server}' \"$0\" \"$@\"\n")
    program.chmod(0o755)
    return str(program)


class Fork:
    """A process like one of `subprocess.Popen`, forked from a process that has imported `libraries`.

    It runs `arguments`: the path of a script or, without a folder, the name of a module, and its arguments.
    `stdin`, `stdout` and `stderr` are open files, or None for nothing; the last two can be subprocess.PIPE.
    `executable` is its `sys.executable`, which is that of this process by default.
    """

    def __init__(
        self,
        arguments,
        cwd,
        environment,
        stdin=None,
        stdout=None,
        stderr=None,
        libraries=LIBRARIES,
        executable=None,
    ):
        self.args, self.returncode, self._received = [*map(str, arguments)], None, b""
        given, self.stdout, self.stderr = [stdin], None, None
        with contextlib.ExitStack() as opened:

            def pipe():
                ours, theirs = os.pipe()
                return ours, opened.enter_context(open(theirs, "wb"))

            for name, file in (("stdout", stdout), ("stderr", stderr)):
                if file is subprocess.PIPE:
                    ours, file = pipe()
                    setattr(self, name, open(ours, encoding="utf-8"))  # noqa: SIM115
                given.append(file)
            self._report, report = pipe()
            nothing = opened.enter_context(open(os.devnull, "r+b"))
            files = [(file or nothing).fileno() for file in (*given, report)]
            request = {"argv": self.args, "cwd": str(cwd), "environment": environment, "files": [0, 1, 2]}
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(str(fork_server(*libraries)))
                request |= {"executable": executable} if executable else {}
                socket.send_fds(connection, [json.dumps(request).encode()], files)
        self.pid = int(self._line(60))

    def _line(self, seconds: float) -> str:
        """The next line of the report. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            if not select.select([self._report], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise subprocess.TimeoutExpired(self.args, seconds)
            received = os.read(self._report, 100)
            assert received, "the fork server died"
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def wait(self, timeout: float = 1e6) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.returncode = int(self._line(timeout))
            os.close(self._report)
        return self.returncode

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(arguments, cwd, environment, **files) -> Fork | subprocess.Popen:
    """A `Fork`, or a process of its own where there are none; the arguments are those of `Fork`."""
    if sys.platform == "linux":
        return Fork(arguments, cwd, environment, **files)
    files.pop("libraries", None)
    options = {name: files.get(name) or subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(python_command(arguments), cwd=cwd, env=environment, encoding="utf-8", **options)


def python_command(arguments) -> list[str]:
    """The command that runs what a `Fork` with these arguments runs."""
    is_module = not os.path.dirname(str(arguments[0]))
    return [sys.executable, *(["-m"] if is_module else []), *map(str, arguments)]


def run_fork(arguments, cwd, environment, input=None, text=True, timeout=120) -> subprocess.CompletedProcess:
    """Like `subprocess.run` with `capture_output=True`."""
    with contextlib.ExitStack() as stack:
        stdin, *written = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        stdin.write(input.encode() if isinstance(input, str) else input or b"")
        stdin.seek(0)
        process = Fork(arguments, cwd, environment, stdin, *written)
        stack.callback(process.kill)
        process.wait(timeout)
        for file in written:
            file.seek(0)
        out, err = (file.read().decode() if text else file.read() for file in written)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
