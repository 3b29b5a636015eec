"""For the tests of the page: a browser, and the real `python -m app` as a process of its own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@dataclass
class Server:
    """A running page: its address, and what can be seen of it from outside."""

    process: subprocess.Popen
    output: Path
    log: Path
    address: str = ""

    def ended(self) -> list[str]:
        """A line for every continuation that has ended: how many tokens, and why."""
        return re.findall(r"\d+ tokens in .*", self.log.read_text())

    def cpu_seconds(self) -> float:
        """The time that the process has spent computing."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(cwd: Path, *arguments: object, root: Path = ROOT):
    """Run the `python -m app` of `root` in the folder `cwd` until the block ends."""
    output, log = cwd / "app.out", cwd / "app.log"
    with output.open("w") as out, log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *map(str, arguments)],
            cwd=cwd, env={**os.environ, "PYTHONPATH": str(root)}, stdout=out, stderr=err,
        )  # fmt: skip
    try:
        yield Server(process, output, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def until_ready(server: Server) -> Server:
    """Wait until the page is there."""
    deadline = time.monotonic() + 60
    while not (found := re.search(r"http://\S+", server.output.read_text())):
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, "the page did not start within a minute"
        time.sleep(0.05)
    server.address = found[0]
    return server


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium. Without one the tests are skipped, but never where CI counts on them."""
    path = os.environ.get("LM_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = f"no browser: install {BROWSERS[0]}, or name one in LM_BROWSER"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET.split())
        yield browser
        browser.close()
