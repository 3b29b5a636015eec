"""A training that was asked for on the page, as it lies on the disk.

    <models>/.jobs/lock                held for a moment while a state changes
                   runner              locked as long as a runner lives (app/jobs/runner.py)
                   runner.log          what runners had to complain of
                   <id>/job.json       the settings, the state, the times
                        process        locked as long as the training lives; names its process
                        log.txt        what train.py printed

Folders whose name begins with a dot hold neither config.json nor training/, so `lm.saving.models_in` and
`--resume` take `.jobs` for no model and no run; and being beside the runs, it moves with them.

Who is running is told by locks alone. The training holds the lock on `process` from before its start,
when the runner takes it and hands it on, until the kernel lets it go: a process id that has been given
to somebody else deceives nobody, and nothing has to be cleaned up after a kill -9 or a power cut. What
job.json says of a job that was running when the lock was let go is then put right by `settled`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from lm.errors import one_line
from lm.files import folder_or_previous, write_text
from lm.run_folder import Run

from . import locks
from .uploads import Texts

FOLDER = ".jobs"
QUEUED, RUNNING, PAUSED, STOPPED = "queued", "running", "paused", "stopped"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
STATES = (QUEUED, RUNNING, PAUSED, STOPPED, DONE, FAILED, INTERRUPTED)
# What a person asked of a running job, and what it is when it has ended.
PAUSE, STOP = "pause", "stop"
_ASKED = {PAUSE: PAUSED, STOP: STOPPED}
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_SETTLED = 1.0  # seconds after which a file that is changed shows another time
_CUT_OFF = "It was cut off; resume it to go on from its last checkpoint."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training: what was asked for, and how it stands."""

    id: str
    title: str  # for people
    text: str  # likewise: what it is trained on
    run: str  # the name of the run's folder, beside `.jobs`
    settings: dict[str, Any] = field(default_factory=dict)  # see app/jobs/recipe.py
    state: str = QUEUED
    asked: str | None = None  # of a running one: 'pause' or 'stop'
    asked_at: float = 0.0  # seconds since the epoch, like all times here
    created: float = 0.0
    queued: float = 0.0  # since when it waits: the order of the queue
    started: float | None = None  # the last time
    ended: float | None = None  # likewise
    message: str = ""  # one line: why it failed or ended
    log_from: int = 0  # where in log.txt the last start begins


class Store:
    """The jobs of a models' folder."""

    def __init__(self, models: Path):
        self.models = models.absolute()
        self.folder = self.models / FOLDER
        self.texts = Texts(self.models)
        self.runner_lock = self.folder / "runner"
        self._seen: dict[str, tuple[tuple[int, int, int], Job | None]] = {}

    def make(self) -> None:
        """Make the folder. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Held while a job is read to be written."""
        return locks.locked(self.folder / "lock")

    def all(self) -> list[Job]:
        """All jobs as they stand, the newest first."""
        try:
            names = [name for name in os.listdir(self.folder) if _ID.fullmatch(name)]
        except OSError:
            names = []
        self._seen = {id: seen for id, seen in self._seen.items() if id in names}
        jobs = (self.get(name) for name in names)
        return sorted((job for job in jobs if job), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, id: str) -> Job | None:
        """The job of that name as it stands; None if there is none, or if its job.json is damaged."""
        job = self._read(id) if _ID.fullmatch(id) else None
        if job and job.state == RUNNING and not self.is_alive(id):
            job = self._read(id)  # it may have written how it ended just before it let go
            return job and self.settled(job)
        return job

    def settled(self, job: Job) -> Job:
        """A job that nobody runs any more, as it stands then."""
        if job.state != RUNNING:
            return job
        ended = _time_of(self.log_of(job.id)) or job.started
        if has_finished(self.run_of(job)):
            return replace(job, state=DONE, asked=None, ended=ended)
        if job.asked:
            return replace(job, state=_ASKED[job.asked], asked=None, ended=ended)
        return replace(job, state=INTERRUPTED, ended=ended, message=_CUT_OFF)

    def write(self, job: Job) -> None:
        """Put a job's job.json on the disk, the lock being held. Raises OSError."""
        write_text(self.folder / job.id / "job.json", json.dumps(asdict(job), indent=1) + "\n")

    def run_of(self, job: Job) -> Run:
        """The places in the run's folder."""
        return Run(self.models / job.run)

    def log_of(self, id: str) -> Path:
        return self.folder / id / "log.txt"

    def lock_of(self, id: str) -> Path:
        return self.folder / id / "process"

    def is_alive(self, id: str) -> bool:
        """Whether the training's process lives."""
        return locks.is_held(self.lock_of(id))

    def process_of(self, id: str) -> int | None:
        """The id of the training's process, if it lives and is on this machine."""
        with contextlib.suppress(OSError, ValueError):
            number, _, host = self.lock_of(id).read_text().partition(" ")
            if host == socket.gethostname() and self.is_alive(id):
                return int(number)
        return None

    def _read(self, id: str) -> Job | None:
        """job.json as it is, read again only when it may have changed."""
        path = self.folder / id / "job.json"
        try:
            stat = path.stat()
            version, job = self._seen.get(id, (None, None))
            if version != (stat.st_mtime_ns, stat.st_ino, stat.st_size):
                job = _job(id, path)
                if time.time() - stat.st_mtime > _SETTLED:  # else the next one may look the same
                    self._seen[id] = (stat.st_mtime_ns, stat.st_ino, stat.st_size), job
            return job
        except FileNotFoundError:  # it is being made, or deleted
            return None
        except OSError as error:
            _warn_once(f"{path} is left out: {error.strerror}")
            return None


def in_order(jobs: list[Job]) -> list[Job]:
    """What runs, then what waits in its order, then the others as they are."""
    running = [job for job in jobs if job.state == RUNNING]
    waiting = sorted((job for job in jobs if job.state == QUEUED), key=lambda job: (job.queued, job.id))
    return running + waiting + [job for job in jobs if job.state not in (RUNNING, QUEUED)]


def new_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


def ended(job: Job, status: int, message: str) -> Job:
    """A job whose training has ended with this exit status."""
    now = time.time()
    if status == 0:
        return replace(job, state=DONE, asked=None, ended=now, message="")
    if status in (130, 143):  # it has saved
        state = _ASKED.get(job.asked, INTERRUPTED)
        message = "" if job.asked else "A signal ended it; resume it to go on."
        return replace(job, state=state, asked=None, ended=now, message=message)
    return replace(job, state=FAILED, asked=None, ended=now, message=message)


def checkpoint_of(run: Run) -> Path | None:
    """The folder of the last checkpoint that a run can go on from."""
    folder = folder_or_previous(run.checkpoint)
    return folder if folder and (folder / "progress.json").is_file() else None


def has_finished(run: Run) -> bool:
    """Whether a run has spent its budget and told its last figures."""
    folder = checkpoint_of(run)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(folder and json.loads((folder / "progress.json").read_text()).get("finished"))
    return False


def _job(id: str, path: Path) -> Job | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        job = Job(**{f.name: values[f.name] for f in fields(Job) if f.name in values})
        _check(job, id)
        return job
    except (ValueError, TypeError, KeyError) as error:
        _warn_once(f"{path} is left out: it is damaged ({one_line(error)})")
        return None


@cache  # the folder is looked through again and again
def _warn_once(message: str) -> None:
    log.warning(message)


def _check(job: Job, id: str) -> None:
    """Raise ValueError if a job.json holds what none of ours does."""
    number = (int, float)
    kinds = {
        "title": str, "text": str, "run": str, "settings": dict, "message": str, "log_from": int,
        "asked_at": number, "created": number, "queued": number,
        "started": (*number, type(None)), "ended": (*number, type(None)),
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(getattr(job, name), kind):
            raise ValueError(f"{name} is {getattr(job, name)!r}")
    if job.id != id or job.state not in STATES or job.asked not in (None, PAUSE, STOP):
        raise ValueError("it belongs to another job, or is of another version")
    if Path(job.run).name != job.run or job.run.startswith(".") or not job.run:
        raise ValueError(f"{job.run!r} is no name of a run")


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
