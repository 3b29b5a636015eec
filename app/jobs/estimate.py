"""What a training would take, measured before it starts: time, memory, disk; and what is in its text.

It is measured by a process of its own (app/jobs/measure.py), which is given so many seconds. What it
has told until then is shown, and remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lm.errors import UserError, one_line

from .runner import command, environment

LIMIT = 60.0  # seconds that all of it may take
_KEPT = 32  # previews that are remembered
_IGNORED = ("seed", "sample_prompt", "patience")  # they change nothing that is estimated


@dataclass(frozen=True)
class Estimate:
    """What a training would take on this machine."""

    parameters: int
    decided: dict[str, Any]  # settings: a number for every `auto`
    seconds: float | None  # from the first step to the end; None: it was not tried
    steps: int | None
    epochs: float | None  # how often the text is read
    steps_per_second: float | None
    characters_per_second: float | None
    memory: int  # bytes, of the process or, if it computes on a GPU, there
    disk: int  # bytes of the run's folder: the model and the checkpoint
    device: str = "cpu"


@dataclass(frozen=True)
class Preview:
    """A text and a training on it, before that starts."""

    rows: dict[str, str]  # the data report
    warnings: list[str] = field(default_factory=list)
    estimate: Estimate | None = None  # None: there was not enough time to measure it


_known: OrderedDict[str, Preview] = OrderedDict()
_one = threading.Lock()


def preview(settings: dict[str, Any], models: Path, busy: bool = False, limit: float = LIMIT) -> Preview:
    """The data report and the estimate for `settings` as train.py takes them, of a run in the folder
    `models`; `busy`: another training runs. Raises UserError, also for what takes too long."""
    key = json.dumps({k: v for k, v in settings.items() if k not in _IGNORED}, sort_keys=True)
    found = _known.get(key)
    if found is None:
        if not _one.acquire(timeout=limit):
            raise UserError("Another estimate is being made: try again in a minute.")
        try:
            found = _measured_elsewhere(settings, limit)
        finally:
            _one.release()
        if found.estimate and not busy:
            _known[key] = found
            while len(_known) > _KEPT:
                _known.popitem(last=False)
    if not found.estimate:
        return found
    return replace(found, warnings=found.warnings + _room(found.estimate, models, busy))


def _measured_elsewhere(settings: dict[str, Any], limit: float) -> Preview:
    """Run measure.py on the settings in an empty folder, where no file can be taken for a dataset."""
    late = False
    with tempfile.TemporaryDirectory(prefix="lm-estimate-") as folder:
        process = subprocess.Popen(
            command("-m", f"{__package__}.measure"), cwd=folder, env=environment(), start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        try:
            output, errors = process.communicate(json.dumps(settings), timeout=limit)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            output, errors = process.communicate()
    # Whole lines of ours, whatever a library may have printed beside them.
    lines = (line for line in output.split("\n")[:-1] if line.startswith("{"))
    told = {name: value for line in lines for name, value in json.loads(line).items()}
    if "error" in told:
        raise UserError(told["error"])
    if late:
        trouble = f"{limit:.0f} seconds were too short to try it. Perhaps choose a smaller size."
    elif process.returncode < 0:
        trouble = "the memory was too small to try it. Choose a smaller size."
    else:
        trouble = one_line(errors.strip().rpartition("\n")[2] or f"status {process.returncode}.")
    if "rows" not in told and late:
        raise UserError(
            f"The text takes more than {limit:.0f} seconds to read. Start the training all the same: it tells"
            " the figures when it has read it."
        )
    if "rows" not in told:
        raise UserError(f"The text could not be looked at: {trouble}")
    if not told.get("estimate"):
        return Preview(told["rows"], [f"There is no estimate: {trouble}"])
    return Preview(told["rows"], told["warnings"], Estimate(**told["estimate"]))


def _room(estimate: Estimate, models: Path, busy: bool) -> list[str]:
    """Warnings where this machine is too small, or busy."""
    result = []
    free = free_memory() if estimate.device == "cpu" else None
    if free is not None and estimate.memory > free:
        result.append(
            f"It needs about {gigabytes(estimate.memory)} of memory, and {gigabytes(free)} are free:"
            " choose a smaller size or a smaller batch."
        )
    with contextlib.suppress(OSError):
        system = os.statvfs(models if models.is_dir() else models.parent)
        room = system.f_bavail * system.f_frsize
        if 3 * estimate.disk > room:  # a new checkpoint is written beside the old one
            result.append(f"The disk has only {gigabytes(room)} left for {gigabytes(estimate.disk)}.")
    if busy:
        result.append("Another training is running: alone, this one will be faster than it looks now.")
    return result


def gigabytes(size: float) -> str:
    """'512 MB' or '3.2 GB'."""
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    return None
