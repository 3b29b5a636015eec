"""Training jobs on disk.

    <models>/.jobs/lock                held briefly while a job changes
                   runner              locked while a runner is alive (app/jobs/runner.py)
                   runner.log          the runner's output
                   <id>/job.json       settings, state, times
                        process        locked while the job's process is alive; contains its process id
                        log.txt        the output of training

Folders whose names start with a dot contain neither config.json nor training/, so
`lm.storage.model_folder.models_in` and `--resume` do not take `.jobs` for a model or a run. It is next to the
runs, so it moves with them.

Only locks decide what is running. A job's process holds the lock on `process` from before its start, when the
runner acquires it and passes it on, until the kernel releases it. So a reused process id cannot mislead
anyone, and nothing needs cleaning up after a kill -9 or a power failure. Where job.json still says "running"
although the lock is free, `JobStore` corrects the state on reading.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from lm.config.schema import BUDGETS
from lm.errors import UserError, one_line
from lm.files import locks
from lm.files.atomic import folder_or_previous, patiently, write_text
from lm.files.json_types import has_type
from lm.storage.run_folder import Run, progress_values

from .uploads import Uploads

FOLDER = ".jobs"
QUEUED, RUNNING, PAUSED, STOPPED = "queued", "running", "paused", "stopped"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
STATES = (QUEUED, RUNNING, PAUSED, STOPPED, DONE, FAILED, INTERRUPTED)
PAUSE, STOP = "pause", "stop"  # what the user may ask of a running job
_STATE_AFTER = {PAUSE: PAUSED, STOP: STOPPED}
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_TIMESTAMP_RESOLUTION = 1.0  # seconds after which a changed file has a different modification time
_CUT_OFF = "The process ended unexpectedly. Resume it to continue from its last checkpoint."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training job. The fields are those of job.json; times are in seconds since the epoch."""

    id: str
    title: str  # for display
    text: str  # the name of its text, for display
    run: str  # the name of the run's folder, which is next to `.jobs`
    settings: dict[str, Any] = field(default_factory=dict)  # see app/jobs/settings.py
    state: str = QUEUED
    asked: str | None = None  # of a running job: "pause" or "stop"
    asked_at: float = 0.0
    created: float = 0.0
    queued: float = 0.0  # defines the order of the queue
    started: float | None = None  # most recently
    ended: float | None = None  # most recently
    message: str = ""  # one line: why it failed or ended
    log_from: int = 0  # offset in log.txt at which the output of the last start begins


_TYPES = get_type_hints(Job)


class JobStore:
    """The jobs in a models folder."""

    def __init__(self, models: Path):
        self.models = models.absolute()
        self.folder = self.models / FOLDER
        self.uploads = Uploads(self.models)
        self.runner_lock = self.folder / "runner"
        self._cache: dict[str, tuple[tuple[int, int, int], Job | None]] = {}

    def create(self) -> None:
        """Create the folder. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """To be held while a job is read, changed and written."""
        return locks.locked(self.folder / "lock")

    def all(self) -> list[Job]:
        """All jobs in their current state, newest first."""
        try:
            names = [name for name in os.listdir(self.folder) if _ID.fullmatch(name)]
        except OSError:
            names = []
        self._cache = {id: cached for id, cached in self._cache.items() if id in names}
        jobs = (self.get(name) for name in names)
        return sorted((job for job in jobs if job), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, id: str) -> Job | None:
        """The job with this id in its current state; None if there is none or its job.json is damaged."""
        job = self._read(id) if _ID.fullmatch(id) else None
        if job and job.state == RUNNING and not self.is_alive(id):
            job = self._read(id)  # it may have written its final state just before releasing the lock
            return job and self._corrected(job)
        return job

    def write(self, job: Job) -> None:
        """Write job.json; the caller holds the lock. Raises OSError."""
        write_text(self.folder / job.id / "job.json", json.dumps(asdict(job), indent=1) + "\n")

    def run_of(self, job: Job) -> Run:
        """The run that the job trains."""
        return Run(self.models / job.run)

    def with_names(self, message: str) -> str:
        """A message of `lm train` with the names of uploaded texts and of runs in place of their paths."""
        return self.uploads.with_names(message).replace(f"{self.models}{os.sep}", "")

    def log_of(self, id: str) -> Path:
        """The file with the output of the job's training."""
        return self.folder / id / "log.txt"

    def lock_of(self, id: str) -> Path:
        """The file that the job's process holds locked."""
        return self.folder / id / "process"

    def is_alive(self, id: str) -> bool:
        """Whether the job's process is alive."""
        return locks.is_held(self.lock_of(id))

    def process_of(self, id: str) -> int | None:
        """The id of the job's process, if it is alive and on this machine."""
        with contextlib.suppress(OSError, ValueError):
            number, _, host = self.lock_of(id).read_text("utf-8").partition(" ")
            if host == socket.gethostname() and self.is_alive(id):
                return int(number)
        return None

    def _read(self, id: str) -> Job | None:
        """The job as job.json has it, which is read again only if it may have changed."""
        path = self.folder / id / "job.json"
        try:
            stat = path.stat()
            version, job = self._cache.get(id, (None, None))
            if version != (stat.st_mtime_ns, stat.st_ino, stat.st_size):
                job = _parse(id, path)
                if time.time() - stat.st_mtime > _TIMESTAMP_RESOLUTION:  # else the next one may look the same
                    self._cache[id] = (stat.st_mtime_ns, stat.st_ino, stat.st_size), job
            return job
        except FileNotFoundError:  # it is being created or deleted
            return None
        except OSError as error:
            _warn_once(f"skipping {path}: {error.strerror}")
            return None

    def _corrected(self, job: Job) -> Job:
        """The actual state of a job whose process has ended."""
        if job.state != RUNNING:
            return job
        ended = _modified(self.log_of(job.id)) or job.started
        if has_finished(self.run_of(job), job.settings):
            return replace(job, state=DONE, asked=None, ended=ended)
        if job.asked:
            return replace(job, state=_STATE_AFTER[job.asked], asked=None, ended=ended)
        return replace(job, state=INTERRUPTED, ended=ended, message=_CUT_OFF)


def queue_order(jobs: list[Job]) -> list[Job]:
    """Running jobs first, then queued ones in the order of the queue, then the others as they are."""
    running = [job for job in jobs if job.state == RUNNING]
    queued = sorted((job for job in jobs if job.state == QUEUED), key=lambda job: (job.queued, job.id))
    return running + queued + [job for job in jobs if job.state not in (RUNNING, QUEUED)]


def new_id() -> str:
    """A new id for a job: the time and three random bytes."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


def after_exit(job: Job, status: int, message: str) -> Job:
    """The job after training has ended with this exit status."""
    now = time.time()
    if status == 0:
        return replace(job, state=DONE, asked=None, ended=now, message="")
    if status in (129, 130, 143):  # interrupted, after saving
        state = _STATE_AFTER[job.asked] if job.asked else INTERRUPTED
        message = "" if job.asked else "The process was stopped by a signal. Resume it to continue."
        return replace(job, state=state, asked=None, ended=now, message=message)
    return replace(job, state=FAILED, asked=None, ended=now, message=message)


def resumable_checkpoint(run: Run) -> Path | None:
    """The folder of the last checkpoint from which a run can be resumed."""
    folder = folder_or_previous(run.checkpoint)
    return folder if folder and (folder / "progress.json").is_file() else None


def has_finished(run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether a run has spent the budget in `settings` and completed the final evaluation."""
    folder = resumable_checkpoint(run)
    with contextlib.suppress(UserError):
        values = progress_values(folder) if folder else {}
        return bool(values.get("finished")) and not new_budget(run, settings)
    return False


def new_budget(run: Run, settings: Mapping[str, Any]) -> dict[str, float]:
    """The budget in `settings`, by the name of its setting, if it is not the one that the run had when its
    last checkpoint was saved; empty otherwise. Raises UserError if the checkpoint is damaged."""
    folder = resumable_checkpoint(run)
    before = progress_values(folder).get("budget") if folder else None
    now = {name: settings.get(name) for name in BUDGETS}
    if not isinstance(before, dict) or before == now:  # earlier versions did not store it
        return {}
    return {name: value for name, value in now.items() if value is not None}


def _parse(id: str, path: Path) -> Job | None:
    try:
        values = json.loads(patiently(path.read_text, "utf-8"))
        job = Job(**{f.name: values[f.name] for f in fields(Job) if f.name in values})
        _check(job, id)
        return job
    except (ValueError, TypeError, KeyError) as error:
        _warn_once(f"skipping {path}: it is damaged ({one_line(error)})")
        return None


@cache  # the folder is scanned again and again
def _warn_once(message: str) -> None:
    log.warning(message)


def _check(job: Job, id: str) -> None:
    """Raise ValueError if job.json contains something that this program never writes."""
    for name, kind in _TYPES.items():
        if not has_type(getattr(job, name), kind):
            raise ValueError(f"{name} is {getattr(job, name)!r}")
    if job.id != id or job.state not in STATES or job.asked not in (None, PAUSE, STOP):
        raise ValueError("it belongs to another job or another version")
    if Path(job.run).name != job.run or job.run.startswith(".") or not job.run:
        raise ValueError(f"{job.run!r} is not the name of a run")


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
