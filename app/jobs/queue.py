"""The trainings that were asked for on the page: adding, pausing, resuming, stopping, watching them.

This is all that the page needs to know of them. It keeps no training itself: each is a process of its
own (runner.py), and how they stand lies on the disk (job.py), where every page and every server on the
same folder sees the same. So any of them may end and come back at any time.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm.errors import UserError

from . import estimate, locks, recipe, runner
from .estimate import Estimate, Preview
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
    Store,
    has_finished,
    in_order,
    new_id,
)  # fmt: skip
from .progress import Follower, Live
from .uploads import Text, Texts, safe_stem

MOST_WAITING = 20  # jobs in the queue
MOST_KEPT = 200  # jobs in all
_LONGEST_TITLE = 80  # characters
_PATIENCE = 30.0  # seconds for which a training may save before a second `stop` kills it
_AFTER_FAILURE = 5.0  # seconds until a runner that failed is tried again
_FOLLOWED = 16  # jobs whose figures are held in memory
_VALIDATE_EVERY, _SHARE = 60.0, 0.01  # seconds, and of the time in all; the longer one
_RESUMABLE = (PAUSED, FAILED, INTERRUPTED)
_GOES_ON = (QUEUED, RUNNING, *_RESUMABLE)  # or may

log = logging.getLogger(__name__)


class Jobs:
    """The trainings whose models appear in the folder `models`; at most `at_once` run side by side.

    Every method raises UserError, with one line for a person, for what cannot be done.
    """

    def __init__(self, models: str | Path, at_once: int = 1):
        if not locks.AVAILABLE:
            raise UserError("Training from the page needs Linux or macOS; `lm train` works everywhere.")
        self._store, self._at_once = Store(Path(models)), at_once
        self._lock = threading.Lock()
        self._followers: OrderedDict[str, Follower] = OrderedDict()
        self._failed_at: float | None = None

    @property
    def texts(self) -> Texts:
        """The uploaded texts."""
        return self._store.texts

    def preview(self, settings: Mapping[str, Any], limit: float = estimate.LIMIT) -> Preview:
        """What is in the text that `settings` name, and what training on it would take. Takes some
        seconds, at most `limit`; the settings are checked as by `add`."""
        flat = recipe.checked(settings, self.texts)
        busy = any(job.state == RUNNING for job in self._store.all())
        return estimate.preview(recipe.resolved(flat, self.texts), self._store.models, busy, limit)

    def add(self, settings: Mapping[str, Any], title: str = "", estimated: Estimate | None = None) -> Job:
        """Put a training with the `settings` of a browser (recipe.py) at the end of the queue. With
        its estimate, a long one validates, shows a sample and keeps its best weights more than ten times."""
        flat = recipe.checked(settings, self.texts)
        flat |= _more_often(flat, estimated)
        text = recipe.text_name(flat["dataset"][0], self.texts)
        title = _title(title) or safe_stem(text.rpartition("/")[2].rpartition(".")[0] or text)
        with self._locked():
            known = self._store.all()
            if sum(job.state == QUEUED for job in known) >= MOST_WAITING:
                raise UserError(f"{MOST_WAITING} trainings are waiting already: let some end first.")
            if len(known) >= MOST_KEPT:
                raise UserError(f"The list holds {MOST_KEPT} trainings: delete some first.")
            now = time.time()
            name = self._free_name(title, flat["cell"], known)
            job = Job(new_id(), title, text, name, flat, created=now, queued=now)
            (self._store.folder / job.id).mkdir()
            self._store.write(job)
        self.keep_going()
        return job

    def list(self) -> list[Job]:
        """All trainings as they stand: what runs, then what waits in its order, then the others, the
        newest first. Sees to it that what waits goes on."""
        self.keep_going()
        return in_order(self._store.all())

    def get(self, id: str) -> Job:
        """The training of that name."""
        job = self._store.get(id) if isinstance(id, str) else None
        if not job:
            raise UserError("That training is not here any more: reload the page.")
        return job

    def live(self, id: str) -> Live:
        """How a training is getting on; cheap enough to be asked for every second."""
        job = self.get(id)
        waiting = [j.id for j in self.list() if j.state == QUEUED]
        with self._lock:
            follower = self._followers.setdefault(id, Follower(self._store, id))
            self._followers.move_to_end(id)
            while len(self._followers) > _FOLLOWED:
                self._followers.popitem(last=False)
        return follower.read(job, waiting.index(id) + 1 if id in waiting else 0)

    def model_of(self, job: Job) -> str | None:
        """The name of the training's model in the models' folder, from its first weights on."""
        return job.run if _is_model(self._store.run_of(job).folder) else None

    def job_of(self, folder: str | Path) -> Job | None:
        """The training that writes into the run's `folder`, or may go on to: nobody else shall rename or
        delete that meanwhile."""
        wanted = Path(folder).absolute()
        going_on = (job for job in self._store.all() if job.state in _GOES_ON)
        return next((job for job in going_on if self._store.run_of(job).folder == wanted), None)

    def follow(self, folder: str | Path, name: str) -> None:
        """The run's `folder` is called `name` now: its training, if that is here, finds it there."""
        folder = Path(folder).absolute()
        if any(self._store.run_of(job).folder == folder for job in self._store.all()):
            with self._locked():
                for job in self._store.all():
                    if self._store.run_of(job).folder == folder:
                        self._write(replace(job, run=name))

    def pause(self, id: str) -> Job:
        """Let a training save and end, and the next one begin; `resume` goes on exactly there."""
        with self._changing(id) as job:
            if job.state == RUNNING:
                return self._ask(job, PAUSE)
            if job.state not in (QUEUED, PAUSED):
                raise UserError(f"'{job.title}' {_says(job)}: there is nothing to pause.")
            return self._write(replace(job, state=PAUSED))

    def stop(self, id: str) -> Job:
        """End a training for good: the best weights so far stay as a model. One that has not ended half
        a minute after it was told to is killed by another `stop`."""
        with self._changing(id) as job:
            if job.state == RUNNING:
                if job.asked and time.time() - job.asked_at > _PATIENCE:
                    self._kill(id)
                return self._ask(job, STOP)
            if job.state not in (QUEUED, STOPPED, *_RESUMABLE):
                raise UserError(f"'{job.title}' {_says(job)}: there is nothing to stop.")
            return self._write(replace(job, state=STOPPED, ended=job.ended or time.time()))

    def resume(self, id: str) -> Job:
        """Put a training that was paused, interrupted or failed at the end of the queue."""
        with self._changing(id) as job:
            if job.state not in _RESUMABLE:
                raise UserError(f"'{job.title}' {_says(job)}: it cannot be resumed.")
            if has_finished(self._store.run_of(job)):
                return self._write(replace(job, state=DONE, message=""))
            recipe.resolved(job.settings, self.texts)  # where the text is gone, that is told here
            job = self._write(replace(job, state=QUEUED, asked=None, queued=time.time(), message=""))
        self.keep_going()
        return job

    def remove(self, id: str) -> None:
        """Take a training that neither runs nor waits out of the list. Its model stays; the run of one
        that never made any is deleted."""
        with self._changing(id) as job:
            if job.state in (QUEUED, RUNNING):
                raise UserError(f"'{job.title}' {_says(job)}: stop it before you delete it.")
            folder = self._store.run_of(job).folder
            if not _is_model(folder):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self._store.folder / id, ignore_errors=True)
        with self._lock:
            self._followers.pop(id, None)

    def remove_text(self, dataset: str) -> Text:
        """Delete an uploaded text, unless a training still needs it."""
        text = self.texts.get(dataset)
        for job in self._store.all():
            if text.dataset in job.settings["dataset"] and job.state in _GOES_ON:
                raise UserError(f"'{job.title}' {_says(job)} and needs this text: delete that first.")
        self.texts.remove(dataset)
        return text

    def keep_going(self) -> None:
        """See to it that somebody starts what waits; a server calls it when it begins, too."""
        with self._lock:
            if self._failed_at and time.monotonic() - self._failed_at < _AFTER_FAILURE:
                return
            if not any(job.state == QUEUED for job in self._store.all()):
                return
            try:
                process = runner.start_runner(self._store, self._at_once)
            except OSError as error:
                log.warning("no training can be started: %s", error)
                self._failed_at = time.monotonic()
                return
        if process:
            threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()

    def _wait_for(self, process: subprocess.Popen) -> None:
        """Wait for a runner's end, so that it leaves no zombie."""
        if process.wait() > 0:
            log.warning("what starts the trainings has failed; see %s", self._store.folder / "runner.log")
            self._failed_at = time.monotonic()

    def _ask(self, job: Job, what: str) -> Job:
        """Ask a running training to end. Who asks again only says what it is to be then: a second signal
        would end it while it saves."""
        return self._write(replace(job, asked=what, asked_at=job.asked_at if job.asked else time.time()))

    def _kill(self, id: str) -> None:
        process = self._store.process_of(id)
        with suppress(ProcessLookupError, PermissionError):
            if process:
                os.kill(process, signal.SIGKILL)

    def _write(self, job: Job) -> Job:
        self._store.write(job)
        return job

    @contextmanager
    def _changing(self, id: str) -> Iterator[Job]:
        """The training of that name, while nobody else changes it."""
        self.get(id)
        with self._locked():
            yield self.get(id)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._store.make()
            with self._store.lock():
                yield
        except OSError as error:
            raise UserError(f"The training cannot be written down: {error.strerror}.") from error

    def _free_name(self, title: str, cell: str, known: list[Job]) -> str:
        """The name of a new run's folder."""
        stem = re.sub(r"\s+", "-", safe_stem(title)) or "text"
        name = f"{stem}-{cell}-{time.strftime('%Y%m%d-%H%M%S')}"
        taken, number = {job.run for job in known}, 1
        while (free := name if number == 1 else f"{name}-{number}") in taken or os.path.lexists(
            self._store.models / free
        ):
            number += 1
        return free


def _is_model(folder: Path) -> bool:
    from lm.saving import is_model  # with torch: who only starts trainings does without

    return is_model(folder)


def _title(title: str) -> str:
    """What a person calls a training, on one line."""
    text = " ".join(str(title).encode("utf-8", "ignore").decode().split())
    return "".join(filter(str.isprintable, text))[:_LONGEST_TITLE].strip()


def _more_often(flat: dict[str, Any], estimated: Estimate | None) -> dict[str, Any]:
    """`eval_every` for a training whose tenth takes long: whoever watches wants to see something."""
    seconds = flat["max_time"] or (estimated.seconds if estimated else None)
    if not (estimated and estimated.steps_per_second and seconds):
        return {}
    every = max(_VALIDATE_EVERY, _SHARE * seconds)
    if every >= seconds / 10:
        return {}
    return {"eval_every": max(1, round(every * estimated.steps_per_second))}


def _says(job: Job) -> str:
    """'is running', the middle of a sentence about a job."""
    if job.state == RUNNING and job.asked:
        return "is just being paused" if job.asked == PAUSE else "is just being stopped"
    return {QUEUED: "waits", FAILED: "has failed", DONE: "is done"}.get(
        job.state, f"{'is' if job.state == RUNNING else 'was'} {job.state}"
    )
