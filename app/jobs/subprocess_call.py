"""Runs a module of this package in a process of its own, for a limited time, and collects what it reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

from lm.errors import one_line

from .runner import command, environment, separate


@dataclass(frozen=True)
class Result:
    """What a process has reported before its end."""

    results: dict[str, Any]  # by their names
    timed_out: bool  # it took too long and was killed
    status: int  # of its exit
    errors: str  # its error output

    @property
    def killed(self) -> bool:
        """Whether it was killed for another reason than its time: memory ran out."""
        return self.status < 0 and not self.timed_out

    @property
    def last_line(self) -> str:
        """Why it failed, on one line."""
        return one_line(self.errors.strip().rpartition("\n")[2] or f"status {self.status}.")


def run_module(module: str, settings: dict[str, Any], limit: float) -> Result:
    """Run `python -m app.jobs.MODULE < settings.json` for at most `limit` seconds.

    The module prints its results as JSON objects, one a line, as soon as they are known. It runs in an empty
    folder, where no file can be mistaken for a dataset.
    """
    timed_out = False
    with tempfile.TemporaryDirectory(prefix=f"lm-{module}-") as folder:
        process = subprocess.Popen(
            command("-m", f"{__package__}.{module}"),
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            **separate(),
        )
        try:
            output, errors = process.communicate(json.dumps(settings), timeout=limit)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            output, errors = process.communicate()
    # Only complete lines of ours: libraries may have printed others.
    lines = (line for line in output.split("\n")[:-1] if line.startswith("{"))
    results = {name: value for line in lines for name, value in json.loads(line).items()}
    return Result(results, timed_out, process.returncode, errors)


def end_after(seconds: int) -> None:
    """Let this process end after a time, even if its parent, which would end it sooner, is gone."""
    if sys.platform != "win32":
        signal.alarm(seconds)  # ends it whatever it is doing
        return
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


def report(**results: Any) -> None:
    """Print results for `run_module`."""
    print(json.dumps(results), flush=True)
