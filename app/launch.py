"""Launches the web UI and waits until it is stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from gradio import http_server
from starlette.types import ASGIApp

from lm.errors import UserError

from .access import Access, bracketed
from .endpoints import return_json
from .gate import SETTINGS, Gate
from .jobs.queue import JobQueue
from .page import build, launch_settings
from .registry import ModelRegistry
from .resources import freeze_objects, leave_cores
from .showcase.exhibits import Showcases
from .ui.middleware import refusal


def launch(
    folders: Sequence[Path],
    host: str,
    port: int | None,
    share: bool,
    auth: tuple[str, str] | None,
    mcp: bool,
    changes_allowed: bool,
    access: Access,
) -> None:
    """Serve the page over the models in `folders` until Ctrl-C or SIGTERM.

    It answers the requests that `access` allows. With `changes_allowed`, users can train models, into the
    first folder, and rename and delete them. Raises UserError if the address cannot be used.
    """
    leave_cores()
    jobs = JobQueue(folders[0]) if changes_allowed else None
    if jobs:
        jobs.ensure_runner()  # for jobs that are still queued
    models = ModelRegistry(list(folders))
    showcases = Showcases(models)
    page = build(models, jobs, showcases)
    freeze_objects()
    put_in_front(access)
    try:
        page.launch(
            server_name=bracketed(host),
            server_port=port,
            share=share,
            auth=auth,
            mcp_server=mcp,
            quiet=True,
            prevent_thread_lock=True,
            **launch_settings(),
        )
    except OSError as error:
        taken = f"port {port} is" if port else "the ports from 7860 on are"
        raise UserError(f"{taken} in use: choose another with --port.") from error
    if page.share_url:
        access.allow(urlsplit(page.share_url).hostname or "")
    if mcp:
        return_json(page.mcp_server_obj)
    print(f"The page is at {page.local_url}", flush=True)
    showcases.prepare()
    wait_for_stop()
    page.close(verbose=False)


def put_in_front(access: Access) -> None:
    """Let Gradio start its server with our limits, and with our gate in front of all of it."""

    class Server(http_server.Server):
        def __init__(self, config: uvicorn.Config, **_reloading: Any):  # in a Space, for code that changes
            config.app = Gate(cast(ASGIApp, config.app), access, refusal)
            for name, value in SETTINGS.items():
                setattr(config, name, value)
            super().__init__(config)

    http_server.Server = Server  # type: ignore[misc, assignment]


def wait_for_stop() -> None:
    """Wait for Ctrl-C or SIGTERM or, on Windows, Ctrl-Break."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(file=sys.stderr)
