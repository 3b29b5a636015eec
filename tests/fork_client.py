"""Forks a process from a fork server for a command line of Python, gives it all open files, and ends like it.

    python -IS fork_client.py SOCKET EXECUTABLE ARGUMENT ...

The arguments are those of Python, of which only -P, -m and the path of a script are known.
"""

import contextlib
import json
import os
import signal
import socket
import sys


def main() -> None:
    server, executable, *arguments = sys.argv[1:]
    if arguments[:1] == ["-P"]:
        arguments.pop(0)
    if arguments[0] == "-m":
        arguments.pop(0)
    elif arguments[0].startswith("-"):
        os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
    files = [number for number in map(int, os.listdir("/proc/self/fd")) if is_open(number)]
    ours, report = os.pipe()
    request = {"argv": arguments, "cwd": os.getcwd(), "environment": dict(os.environ), "files": files}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(server)
        message = json.dumps({**request, "executable": executable}).encode()
        socket.send_fds(connection, [message], [*files, report])
    for number in (*files, report):
        os.close(number)
    _, status = map(int, os.fdopen(ours).read().split())
    if status < 0:
        with contextlib.suppress(OSError):  # of SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def is_open(number: int) -> bool:
    """Whether a file is open: the one through which the list of files was read no longer is."""
    with contextlib.suppress(OSError):
        return bool(os.fstat(number))
    return False


main()
