"""A process that has imported libraries but nothing of ours, and forks the processes that tests start.

    python -P fork_server.py SOCKET LIBRARY ... < PIPE

Importing torch takes two seconds, and gradio three more; a fork takes a hundredth of one. A fork then runs a
script or a module as the command line `python SCRIPT` or `python -m MODULE` would: all of our modules are
imported, the process ends as Python ends it, and its signals, folder, environment and files are its own.

SOCKET is an open Unix socket, on which it listens until PIPE is closed. A request is JSON with `argv`, `cwd`,
`environment`, `files`, the numbers of the open files that come with it, and perhaps `executable`, what
`sys.executable` should be. One more file comes with it, for the report: a pipe into which the process id is
written, and at the end the exit status, one a line. If nobody reads it any more, the process is killed.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

_ERRORS = {name: getattr(sys, name).errors for name in ("stdin", "stdout")}


def next_request(listener: socket.socket) -> dict | None:
    """Answer requests. Returns in each process that was forked, with what it should run; and None in this
    one when standard input was closed."""
    while True:
        if 0 in select.select([0, listener], [], [])[0]:
            return None
        connection, _ = listener.accept()
        with connection:
            message, files, _, _ = socket.recv_fds(connection, 1 << 20, 100)
        *files, report = files
        if os.fork() == 0:
            listener.close()
            watch(files, report)
            become(request := json.loads(message), files)
            return request
        for file in (*files, report):
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def watch(files: list[int], report: int) -> None:
    """Fork again. Returns in the child; the parent reports its process id and exit status, and ends."""
    if pid := os.fork():
        for file in (0, 1, 2, *files):
            os.close(file)
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
            os.write(report, b"%d\n" % pid)
        events = select.poll()
        events.register(os.pidfd_open(pid), select.POLLIN)
        events.register(report, 0)  # an error is that nobody reads
        if any(event & select.POLLERR for _, event in events.poll()):
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            os.write(report, b"%d\n" % status)
        os._exit(0)
    os.close(report)


def become(request: dict, files: list[int]) -> None:
    """Take over the folder, environment, files and arguments of a request."""
    # Out of the way of the numbers that they should have.
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for file in files]
    for file in (0, 1, 2, *files):
        os.close(file)
    for number, file in zip(request["files"], moved, strict=True):
        os.dup2(file, number)
        os.close(file)
    environment = request["environment"]
    encoding, _, errors = environment.get("PYTHONIOENCODING", "utf-8").partition(":")
    unbuffered = "PYTHONUNBUFFERED" in environment
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        stream = None
        if number in request["files"]:
            lines = 1 if name == "stderr" or unbuffered or os.isatty(number) else -1
            how = "backslashreplace" if name == "stderr" else errors or _ERRORS[name]
            stream = open(number, mode, lines, encoding, how, closefd=False)  # noqa: SIM115
            if unbuffered and mode == "w":
                stream.reconfigure(write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = request["argv"]
    sys.executable = request.get("executable", sys.executable)


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    os.fsync = runpy.run_path(str(Path(__file__).with_name("strict_fsync.py")))["fsync"]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # All forks share the compiled code of our modules, and the memory of what was imported.
    sys.dont_write_bytecode = False
    gc.freeze()
    request = next_request(listener)
    if request is None:
        return
    name, paths = sys.argv[0], request["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [os.path.dirname(name) or os.getcwd(), *filter(None, paths), *sys.path]
    if os.path.dirname(name):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
