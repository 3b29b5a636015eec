"""A process that has imported libraries but nothing of ours, and forks the processes that tests start.

    python -P fork_server.py SOCKET LIBRARY ...

Importing torch takes two seconds, and gradio three more; a fork takes a hundredth of one. A fork then runs a
script or a module as the command line `python SCRIPT` or `python -m MODULE` would: all of our modules are
imported, the process ends as Python ends it, and its signals, folder, environment and files are its own.

Each request on the socket is JSON with `argv`, `cwd` and `environment`, and the open files for standard
input, output and error and for the report: a pipe into which the process id is written, and at the end the
exit status, one a line.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import sys
from pathlib import Path


def next_request(requests: socket.socket) -> dict | None:
    """Answer requests. Returns in each process that was forked, with what it should run; and None in this
    one when the socket was closed."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            return None
        *standard, report = files
        if os.fork() == 0:
            requests.close()
            watch(standard, report)
            become(request := json.loads(message), standard)
            return request
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def watch(standard: list[int], report: int) -> None:
    """Fork again. Returns in the child; the parent reports its process id and exit status, and ends."""
    if pid := os.fork():
        for file in (0, 1, 2, *standard):
            os.close(file)
        os.write(report, b"%d\n" % pid)
        os.write(report, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os.close(report)


def become(request: dict, standard: list[int]) -> None:
    """Take over the folder, environment, files and arguments of a request."""
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    streams = {"stdin": "r", "stdout": "w", "stderr": "w"}
    for number, (name, mode) in enumerate(streams.items()):
        errors = "backslashreplace" if name == "stderr" else getattr(sys, name).errors
        buffering = 1 if name == "stderr" or os.isatty(number) else -1
        stream = open(number, mode, buffering, "utf-8", errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    os.fsync = runpy.run_path(str(Path(__file__).with_name("strict_fsync.py")))["fsync"]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # what was imported stays in the memory that all forks share
    request = next_request(requests)
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
