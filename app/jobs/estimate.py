"""The preview of a training job: its time, memory and disk space, and what its text contains.

A separate process (app/jobs/trial_run.py) measures this within a time limit. What it has reported by then is
shown and cached.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lm.console.wording import format_bytes
from lm.errors import UserError
from lm.files.model_files import version_of
from lm.storage.model_folder import WEIGHTS

from .subprocess_call import run_module

LIMIT = 60.0  # seconds that the whole measurement may take
_CACHED = 32  # previews
_IGNORED = ("seed", "sample_prompt", "patience")  # they do not affect the estimate


@dataclass(frozen=True)
class Estimate:
    """What a training job would take on this machine."""

    parameters: int
    resolved: dict[str, Any]  # settings with a number in place of every `auto`
    seconds: float | None  # from the first step to the end; None: not tried
    steps: int | None
    epochs: float | None  # passes over the text
    steps_per_second: float | None
    characters_per_second: float | None
    memory: int  # bytes, of the process or, with a GPU, of the GPU
    disk: int  # bytes of the run's folder: the model and one checkpoint
    device: str = "cpu"


@dataclass(frozen=True)
class Preview:
    """A text, and a training job on it that has not started."""

    rows: dict[str, str]  # the data report
    warnings: list[str] = field(default_factory=list)
    estimate: Estimate | None = None  # None: it could not be measured in time


_cache: OrderedDict[str, Preview] = OrderedDict()
_measuring = threading.Lock()


def preview(settings: dict[str, Any], models: Path, busy: bool = False, limit: float = LIMIT) -> Preview:
    """The data report and the estimate for `settings`, which are those of `lm train`, of a run in the folder
    `models`. `busy` says that another job is running. Raises UserError if the text cannot be read within
    the limit, or while another preview is being computed."""
    relevant = {name: value for name, value in settings.items() if name not in _IGNORED}
    key = json.dumps([relevant, _version(settings.get("init_from"))], sort_keys=True)
    found = _cache.get(key)
    if found is None:
        if not _measuring.acquire(timeout=limit):
            raise UserError("another preview is being computed; try again in a minute.")
        try:
            found = _cache.get(key) or _measured(settings, limit)  # another visitor may have asked
            if found.estimate and not busy:
                _cache[key] = found
                while len(_cache) > _CACHED:
                    _cache.popitem(last=False)
        finally:
            _measuring.release()
    if not found.estimate:
        return found
    return replace(found, warnings=found.warnings + machine_warnings(found.estimate, models, busy))


def _version(model: str | None) -> tuple[int, ...]:
    """Identifies the model in a folder: another one may get its name."""
    if model:
        with contextlib.suppress(OSError):
            return version_of(Path(model) / WEIGHTS)
    return ()


def _measured(settings: dict[str, Any], limit: float) -> Preview:
    result = run_module("trial_run", settings, limit)
    results, timed_out = result.results, result.timed_out
    if "error" in results:
        raise UserError(results["error"])
    if timed_out:
        reason = f"measuring it takes more than {limit:.0f} seconds. Try a smaller size."
    elif result.killed:
        reason = "there is not enough memory to try it. Choose a smaller size."
    else:
        reason = result.last_line
    if "rows" not in results and timed_out:
        raise UserError(
            f"reading the text takes more than {limit:.0f} seconds; you can start training anyway, and the"
            " numbers appear once the text has been read."
        )
    if "rows" not in results:
        raise UserError(f"cannot preview the text: {reason}")
    if not results.get("estimate"):
        return Preview(results["rows"], [f"No estimate: {reason}"])
    return Preview(results["rows"], results["warnings"], Estimate(**results["estimate"]))


def machine_warnings(estimate: Estimate, models: Path, busy: bool) -> list[str]:
    """Warnings where this machine is too small for the job, or busy with another one."""
    result = []
    free = free_memory() if estimate.device == "cpu" else None
    if free is not None and estimate.memory > free:
        result.append(
            f"Training needs about {format_bytes(estimate.memory)} of memory, but only"
            f" {format_bytes(free)} are free: choose a smaller size or batch."
        )
    with contextlib.suppress(OSError):
        free_disk = shutil.disk_usage(models if models.is_dir() else models.parent).free
        if 3 * estimate.disk > free_disk:  # a new checkpoint is written next to the old one
            result.append(
                f"The run needs {format_bytes(estimate.disk)} of disk space, but only"
                f" {format_bytes(free_disk)} are free."
            )
    if busy:
        result.append("Another job is running: this one will be faster when it runs alone.")
    return result


def free_memory() -> int | None:
    """Bytes available without swapping; None if the system does not report it."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    return None
