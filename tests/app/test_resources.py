"""Limits of the operating system, each in a process of its own."""

import platform
import subprocess
import sys

import pytest

from app.resources import MAX_CONNECTIONS
from tests.conftest import ROOT

resource = pytest.importorskip("resource", reason="the system has no such limits")


def result(code):
    code = f"import resource; from resource import RLIMIT_NOFILE; from app.resources import *; {code}"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return output.stdout.split()


def test_as_many_files_as_needed_may_be_opened():
    limits = "resource.setrlimit(RLIMIT_NOFILE, (100, {})); before = max_connections(); allow_many_files();"
    shown = "print(before, resource.getrlimit(RLIMIT_NOFILE)[0], max_connections())"
    assert result(limits.format(1500) + shown) == ["50", "1500", "750"]
    assert result(limits.format(3000) + shown) == ["50", "2000", str(MAX_CONNECTIONS)]
    more = "resource.setrlimit(RLIMIT_NOFILE, (2500, 3000)); before = 0; allow_many_files();"
    assert result(more + shown) == ["0", "2500", str(MAX_CONNECTIONS)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_their_memory():
    """Many threads allocate at the same time, and free it again."""
    code = """
import re, threading
share_memory_between_threads() if {shared} else None
barrier = threading.Barrier(30)
def allocate():
    barrier.wait()
    kept = [bytes(100_000) for _ in range(20)]
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(30)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
maps = open("/proc/self/maps").read()
# An arena reserves 64 MB of address space.
sizes = [int(end, 16) - int(start, 16) for start, end in re.findall(r"^(\\w+)-(\\w+) ", maps, re.M)]
print(sum(60 << 20 < size < 65 << 20 for size in sizes))
"""
    code = code.replace("\\\\", "\\")
    (shared,), (separate,) = (result("\n" + code.format(shared=value)) for value in (True, False))
    assert int(shared) == 0 < int(separate)
