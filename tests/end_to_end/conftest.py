"""A browser, the real `python -m app` in its own process, and a local Hugging Face Hub."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lm
from tests.conftest import ROOT
from tests.end_to_end.attacked import kill_training_jobs, make_attacked
from tests.end_to_end.browsers import HINT, find_browser
from tests.end_to_end.hub import use
from tests.end_to_end.page import DESKTOP, Page
from tests.hub.server import HubServer
from tests.processes import LIBRARIES, Fork, forking_python

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-site-isolation-trials --renderer-process-limit=1"
)


SERVER = (*LIBRARIES, "starlette.applications", "uvicorn")
PAGE = (*SERVER, "gradio")


@dataclass
class Server:
    """A running server: its address, and what is visible from outside."""

    process: subprocess.Popen | Fork
    output: Path
    log: Path
    address: str = ""

    def ended(self) -> list[str]:
        """One line per finished continuation: how many tokens, and why it ended."""
        return re.findall(r"\d+ tokens in .*", self.log.read_text())

    def cpu_seconds(self) -> float:
        """The CPU time used by the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """An unused port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(cwd: Path, *arguments: object, root: Path = ROOT, **variables: str):
    """Run `python -m app` from the checkout `root` in the folder `cwd` until the block ends, with further
    environment `variables`."""
    output, log = cwd / "app.out", cwd / "app.log"
    with output.open("w") as out, log.open("w") as err:
        environment = {**os.environ, "PYTHONPATH": str(root), **variables}
        process = Fork(
            ["app", *arguments], cwd, environment, stdout=out, stderr=err,
            libraries=SERVER if "--api" in arguments else PAGE, executable=forking_python(),
        )  # fmt: skip
    try:
        yield Server(process, output, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def until_ready(server: Server, sign: str = "") -> Server:
    """Wait until the server prints its address, after the text `sign`."""
    deadline = time.monotonic() + 60
    while not (found := re.search(rf"{sign}.*?(http://\S+)", server.output.read_text())):
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, "the server did not start within a minute"
        time.sleep(0.05)
    server.address = found[1]
    return server


@pytest.fixture(scope="session")
def context(tmp_path_factory):
    """Chromium. Without it, the tests are skipped; see `pytest_runtest_makereport` in tests/conftest.py."""
    path = find_browser()
    if path is None:
        pytest.skip(f"no browser: {HINT}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # With its own profile folder it caches compiled scripts: a page opens in half the time.
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=path, args=QUIET.split()
        )
        yield context
        context.close()


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title><body></body>")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def other_site():
    """The port of another site, all of whose pages are empty."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="session")
def browser(context):
    return context.browser


@pytest.fixture(scope="session")
def offline(browser):
    """A browser without a network, for exported pages."""
    context = browser.new_context(offline=True)
    yield context
    context.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory, browser, trained_run):
    """Two servers, started at the same time: one with two models, and one from an installation without
    even the shipped model."""
    full, bare = tmp_path_factory.mktemp("full"), tmp_path_factory.mktemp("bare")
    shutil.copytree(trained_run, full / "runs" / "boat")
    other = shutil.copytree(trained_run, full / "more" / "other")
    config = json.loads((other / "config.json").read_text())
    config["trained_on"]["dataset"] = "<img src=x onerror=alert(1)>${alert(2)}"
    (other / "config.json").write_text(json.dumps(config))
    for package in ("lm", "app"):
        shutil.copytree(ROOT / package, bare / "root" / package, ignore=shutil.ignore_patterns("pretrained"))
    with (
        serving(full, "--models", "runs", "--models", "more") as first,
        # Both would search for a free port from 7860 on, and could find the same one.
        serving(bare, "--port", free_port(), root=bare / "root") as second,
    ):
        yield until_ready(first), until_ready(second)


@pytest.fixture(scope="session")
def server(servers):
    return servers[0]


@pytest.fixture(scope="session")
def model(trained_run):
    """The model of the server."""
    return lm.load(trained_run, device="cpu")


@pytest.fixture(scope="session")
def attacked_server(tmp_path_factory, trained_run):
    folder = tmp_path_factory.mktemp("attacked")
    make_attacked(folder, trained_run)
    try:
        temporary = str(folder / "temporary")
        with serving(folder, "--port", free_port(), GRADIO_TEMP_DIR=temporary) as server:
            yield until_ready(server)
    finally:
        kill_training_jobs(folder)


@pytest.fixture
def attacked(attacked_server):
    """A server of a page for attacks, none of which may leave a traceback in its log."""
    before = len(attacked_server.log.read_text())
    yield attacked_server
    log = attacked_server.log.read_text()[before:]
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]


@pytest.fixture
def open_page(browser, context):
    """Opens browser tabs, each with its own session; none may have errors or leave this computer."""
    tabs, troubles = [], []

    def open_page(server, path="", size=DESKTOP, tab_name="Write", locale=None, first=False):
        tab = (browser.new_context(locale=locale) if locale else context).new_page()
        if not tabs:  # of this test: the documents of earlier tests are gone
            stored = {"origin": server.address.rstrip("/"), "storageTypes": "indexeddb"}
            tab.context.new_cdp_session(tab).send("Storage.clearDataForOrigin", stored)
        tabs.append(tab)
        tab.set_viewport_size(size)
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        tab.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda r: r.url.startswith((server.address, "data:")) or troubles.append(r.url))
        # Every session starts fresh and keeps its state on reload. Only a `first` visit shows the showcase.
        known = "localStorage.clear()" + ("" if first else ", localStorage.setItem('lm.showcase', 'closed')")
        tab.add_init_script(f"sessionStorage.known ||= ({known}, 1)")
        tab.goto(server.address + path)
        tab.locator("#facts table, #facts .note").first.wait_for()
        page = Page(tab, troubles)
        if tab_name != "Write":
            page.go_to(tab_name)
        return page

    yield open_page
    for tab in tabs:
        tab.close()
    assert not troubles


@pytest.fixture
def page(open_page, server):
    return open_page(server)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(tmp_path) as hub:
        use(hub, monkeypatch)
        yield hub
