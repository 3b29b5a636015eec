"""The queue of training jobs: add, pause, resume, stop and watch them.

This is the interface that the page uses. Each job is a process of its own (runner.py), and its state is on
disk (job.py), where every page and every server on the same folder sees it. So a server can be restarted at
any time.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm.config.schema import BUDGETS
from lm.data.compression import without_compression
from lm.errors import UserError
from lm.files.atomic import portable_name
from lm.storage.model_folder import is_model
from lm.storage.run_folder import progress_values
from lm.storage.run_lock import check_free

from ..registry import SHIPPED
from . import download, estimate, reading, runner
from .estimate import Preview
from .job import (
    DONE,
    FAILED,
    INTERRUPTED,
    PAUSE,
    PAUSED,
    QUEUED,
    RUNNING,
    STOP,
    STOPPED,
    Job,
    JobStore,
    has_finished,
    new_id,
    queue_order,
    resumable_checkpoint,
)
from .progress import JobProgress, ProgressReader
from .reading import Reading
from .settings import (
    DEFAULT_DATASET,
    RANGES,
    check_settings,
    dataset_name,
    starting_from,
    with_dataset_path,
)
from .uploads import PREFIX, Uploads, safe_stem

MAX_QUEUED = 20  # jobs
MAX_JOBS = 200
RESUMABLE = (PAUSED, FAILED, INTERRUPTED)
EXTENDABLE = (DONE, STOPPED)
_MAX_TITLE = 80  # characters
EXTENSION = 120.0  # seconds by which `extend` trains a run further
_DAY = RANGES["max_time"][1]
_KILL_AFTER = 30.0  # seconds in which a job may save before a second `stop` kills it
_RETRY_AFTER = 5.0  # seconds until a runner that failed is started again
_CACHED_READERS = 16

if sys.platform == "win32":
    _KILL = signal.SIGTERM  # every signal of `os.kill` ends a process there
else:
    _KILL = signal.SIGKILL

log = logging.getLogger(__name__)


class JobQueue:
    """The training jobs whose models appear in the folder `models`; one runs at a time.

    Every method raises UserError, with the reason, if it cannot do its work.
    """

    def __init__(self, models: str | Path):
        self.store = JobStore(Path(models))
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, ProgressReader] = OrderedDict()
        self._failed_at: float | None = None

    @property
    def uploads(self) -> Uploads:
        """The uploaded texts."""
        return self.store.uploads

    def preview(
        self, settings: Mapping[str, Any], base: Path | None = None, limit: float = estimate.LIMIT
    ) -> Preview:
        """What the text contains and what training on it would take. Takes some seconds, at most `limit`.
        The settings are checked as in `add`."""
        flat = with_dataset_path(self._checked(settings, base), self.uploads)
        busy = any(job.state == RUNNING for job in self.store.all())
        try:
            found = estimate.preview(flat, self.store.models, busy, limit)
        except UserError as error:
            raise UserError(self.store.with_names(str(error))) from error
        return replace(found, warnings=[self.store.with_names(line) for line in found.warnings])

    def read(self, settings: Mapping[str, Any], limit: float = reading.LIMIT) -> Reading:
        """How the text of a job with these settings is read; nothing is known of a text that was not
        uploaded. Takes up to `limit` seconds. The settings are checked as in `add`."""
        flat = check_settings(settings, self.uploads)
        if not flat["dataset"][0].startswith(PREFIX):
            return Reading(kind="text" if flat["dataset"] == [DEFAULT_DATASET] else "")
        found = reading.read(with_dataset_path(flat, self.uploads), limit)
        return replace(found, error=self.uploads.with_names(found.error))

    def download_size(self, settings: Mapping[str, Any]) -> int:
        """The bytes that a job with these settings would download for its text: 0 unless the text is on the
        Hub and not cached. The settings are checked as in `add`."""
        flat = check_settings(settings, self.uploads)
        if flat["dataset"] == [DEFAULT_DATASET] or flat["dataset"][0].startswith(PREFIX):
            return 0
        return download.size(flat)

    def _checked(self, settings: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
        flat = check_settings(settings, self.uploads)
        return starting_from(base, flat) if base else flat

    def add(self, settings: Mapping[str, Any], title: str = "", base: Path | None = None) -> Job:
        """Queue a job with the settings that a browser sent (settings.py). With `base`, it starts from the
        weights of the model in that folder, and has its network and tokens. Returns the job that waits or
        runs already with this title and these settings, if there is one: the button was pressed twice."""
        flat = self._checked(settings, base)
        text = dataset_name(flat["dataset"][0], self.uploads)
        stem = without_compression(text).rpartition("/")[2].rpartition(".")[0] or text
        title = _clean_title(title) or safe_stem(stem)
        with self._locked():
            jobs = self.store.all()
            for job in jobs:
                is_same = (job.title, json.dumps(job.settings)) == (title, json.dumps(flat))
                if is_same and job.state in (QUEUED, RUNNING) and not job.asked:
                    return job
            if sum(job.state == QUEUED for job in jobs) >= MAX_QUEUED:
                raise UserError(f"{MAX_QUEUED} jobs are queued already; wait until one has finished.")
            if len(jobs) >= MAX_JOBS:
                raise UserError(f"there are {MAX_JOBS} jobs already; remove some first.")
            now = time.time()
            run = self._new_run_name(title, jobs)
            job = Job(new_id(), title, text, run, flat, created=now, queued=now)
            (self.store.folder / job.id).mkdir()
            self.store.write(job)
        self.ensure_runner()
        return job

    def jobs(self) -> list[Job]:
        """All jobs: the running one, then those in the queue, then the others, newest first. Makes sure
        that a runner works on the queue."""
        self.ensure_runner()
        return queue_order(self.store.all())

    def get(self, id: str) -> Job:
        """The job with this id."""
        job = self.store.get(id) if isinstance(id, str) else None
        if not job:
            raise UserError("this job no longer exists; reload the page.")
        return job

    def progress(self, id: str) -> JobProgress:
        """The progress of a job; cheap enough to be called every second."""
        job = self.get(id)
        queued = [j.id for j in self.jobs() if j.state == QUEUED]
        with self._lock:
            reader = self._readers.setdefault(id, ProgressReader(self.store, id))
            self._readers.move_to_end(id)
            while len(self._readers) > _CACHED_READERS:
                self._readers.popitem(last=False)
        return reader.read(job, queued.index(id) + 1 if id in queued else 0)

    def model_name(self, job: Job) -> str | None:
        """The name of the job's model in the models folder; None until its first weights are saved."""
        return job.run if is_model(self.store.run_of(job).folder) else None

    def job_of_run(self, folder: str | Path) -> Job | None:
        """The job that writes to this run folder or may still do so. Until it has ended for good, the folder
        must not be renamed or deleted."""
        folder = Path(folder).absolute()
        return next((job for job in self._unfinished() if self.store.run_of(job).folder == folder), None)

    def job_starting_from(self, folder: str | Path) -> Job | None:
        """The job that has yet to start from the model in this folder, which it needs until it has saved a
        checkpoint."""
        folder = Path(folder).absolute()
        waiting = (job for job in self._unfinished() if not resumable_checkpoint(self.store.run_of(job)))
        return next((job for job in waiting if _base(job) == folder), None)

    def _unfinished(self) -> Iterator[Job]:
        return (job for job in self.store.all() if job.state in (QUEUED, RUNNING, *RESUMABLE))

    def remembers(self, folder: str | Path) -> bool:
        """Whether a job in the list has its run in this folder, or started from a model there. The folder may
        be gone or not exist yet; another model there would be taken for the job's, or overwritten."""
        return Path(folder).absolute() in self._folders(self.store.all())

    def _folders(self, jobs: Iterable[Job]) -> set[Path | None]:
        return {folder for job in jobs for folder in (self.store.run_of(job).folder, _base(job))}

    def run_renamed(self, folder: str | Path, name: str) -> None:
        """The model in `folder` is now called `name`: let its job and those that start from it find it."""
        folder = Path(folder).absolute()
        if not self.remembers(folder):
            return
        with self._locked():
            for job in self.store.all():
                if self.store.run_of(job).folder == folder:
                    self._write(replace(job, run=name))
                elif _base(job) == folder:
                    start = {"init_from": str(folder.with_name(name))}
                    self._write(replace(job, settings=job.settings | start))

    def pause(self, id: str) -> Job:
        """Let a job save and end, so that the next one can start; `resume` continues exactly there."""
        with self._changing(id) as job:
            if job.state == RUNNING:
                return self._ask(job, PAUSE)
            if job.state not in (QUEUED, PAUSED):
                raise UserError(f"'{job.title}' {_is(job)} and cannot be paused.")
            return self._write(replace(job, state=PAUSED))

    def stop(self, id: str) -> Job:
        """End a job for good; its best weights so far remain as a model. A second `stop`, half a minute after
        the first, kills a job that has not ended by then."""
        with self._changing(id) as job:
            if job.state == RUNNING:
                if job.asked and time.time() - job.asked_at > _KILL_AFTER:
                    self._kill(id)
                return self._ask(job, STOP)
            if job.state not in (QUEUED, STOPPED, *RESUMABLE):
                raise UserError(f"'{job.title}' {_is(job)} and cannot be stopped.")
            return self._write(replace(job, state=STOPPED, ended=job.ended or time.time()))

    def resume(self, id: str) -> Job:
        """Put a paused, interrupted or failed job at the end of the queue."""
        with self._changing(id) as job:
            if job.state not in RESUMABLE:
                raise UserError(f"'{job.title}' {_is(job)} and cannot be resumed.")
            if has_finished(self.store.run_of(job), job.settings):
                return self._write(replace(job, state=DONE, message=""))
            with_dataset_path(job.settings, self.uploads)  # reports a missing text now rather than later
            job = self._write(replace(job, state=QUEUED, asked=None, queued=time.time(), message=""))
        self.ensure_runner()
        return job

    def extend(self, id: str) -> Job:
        """Train an ended job for two more minutes, in the same run: put it at the end of the queue."""
        with self._changing(id) as job:
            if job.state not in EXTENDABLE:
                raise UserError(f"'{job.title}' {_is(job)} and cannot be trained further.")
            checkpoint = resumable_checkpoint(self.store.run_of(job))
            if not checkpoint:
                raise UserError(f"'{job.title}' was stopped before it was saved; start it again instead.")
            with_dataset_path(job.settings, self.uploads)
            budget = round(float(progress_values(checkpoint).get("seconds", 0.0)) + EXTENSION, 1)
            if budget > _DAY:
                raise UserError(f"'{job.title}' has been trained for a day, which is the limit.")
            settings = job.settings | dict.fromkeys(BUDGETS) | {"max_time": budget}
            job = self._write(
                replace(job, state=QUEUED, settings=settings, asked=None, queued=time.time(), message="")
            )
        self.ensure_runner()
        return job

    def remove(self, id: str) -> None:
        """Remove a job that is neither running nor queued. Its model stays; a run without a model is
        deleted."""
        with self._changing(id) as job:
            if job.state in (QUEUED, RUNNING):
                raise UserError(f"'{job.title}' {_is(job)}; stop it before you remove it.")
            folder = self.store.run_of(job).folder
            if not is_model(folder):
                check_free(folder)
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self.store.folder / id, ignore_errors=True)
        with self._lock:
            self._readers.pop(id, None)

    def ensure_runner(self) -> None:
        """Start a runner if jobs are queued and none is alive. A server also calls this when it starts."""
        with self._lock:
            if self._failed_at and time.monotonic() - self._failed_at < _RETRY_AFTER:
                return
            if not any(job.state == QUEUED for job in self.store.all()):
                return
            try:
                process = runner.start_runner(self.store)
            except OSError as error:
                log.warning("cannot start the queued jobs: %s", error)
                self._failed_at = time.monotonic()
                return
        if process:
            threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a runner ends, so that it leaves no zombie."""
        if process.wait() > 0:
            log.warning("the runner of the training jobs failed; see %s", self.store.folder / "runner.log")
            self._failed_at = time.monotonic()

    def _ask(self, job: Job, what: str) -> Job:
        """Ask a running job to end. Asking again only changes its final state: a second signal would end it
        while it saves."""
        return self._write(replace(job, asked=what, asked_at=job.asked_at if job.asked else time.time()))

    def _kill(self, id: str) -> None:
        process = self.store.process_of(id)
        with suppress(OSError):
            if process:
                os.kill(process, _KILL)

    def _write(self, job: Job) -> Job:
        self.store.write(job)
        return job

    @contextmanager
    def _changing(self, id: str) -> Iterator[Job]:
        """The job with this id, while nobody else can change it."""
        self.get(id)
        with self._locked():
            yield self.get(id)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.store.create()
            with self.store.lock():
                yield
        except OSError as error:
            raise UserError(f"cannot save the job: {error.strerror}.") from error

    def _new_run_name(self, title: str, jobs: Iterable[Job]) -> str:
        """An unused name for the folder of a new run, as similar to the title as possible: it is the name of
        the model."""
        stem = name = portable_name(safe_stem(title)) or "text"
        number = 1
        taken = {self.store.models / SHIPPED, *self._folders(jobs)}
        while (folder := self.store.models / name) in taken or os.path.lexists(folder):
            number += 1
            name = f"{stem} {number}"
        return name


def _clean_title(title: str) -> str:
    """A title as the user entered it, reduced to one printable line."""
    text = " ".join(str(title).encode("utf-8", "ignore").decode().split())
    return "".join(filter(str.isprintable, text))[:_MAX_TITLE].strip()


def _base(job: Job) -> Path | None:
    """The folder of the model that a job starts from."""
    start = job.settings.get("init_from")
    return Path(start) if start else None


def _is(job: Job) -> str:
    """The state of a job as part of a sentence: 'is running'."""
    if job.state == RUNNING and job.asked:
        return "is being paused" if job.asked == PAUSE else "is being stopped"
    verbs = {QUEUED: "is", RUNNING: "is", DONE: "is", FAILED: "has"}
    return f"{verbs.get(job.state, 'was')} {job.state}"
