"""The progress of a job, read from the files of its run.

metrics.jsonl may grow for days: only its new lines are read, and neighboring points of the curve are merged
whenever there are too many, so that a long job takes no more memory than a short one.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.config.schema import DEFAULT_TIME
from lm.storage.run_folder import samples_in
from lm.training.facts import Facts, read_facts

from .job import DONE, QUEUED, RUNNING, Job, JobStore

MAX_POINTS = 600  # of the curve
_MAX_VALIDATIONS = 2000
_TAIL = 16 << 10  # bytes read from the end of log.txt
_SAMPLES = 256 << 10  # bytes read from the end of samples.txt
_LOG_LINES = 20
_MAX_STEP_TIME = 60.0  # seconds without a new line of metrics after which the clock of a job stops
_BLOCK = 4 << 20  # bytes of metrics.jsonl read at a time

Point = tuple[int, float, float]  # step, seconds of training, loss in nats per token
Sample = tuple[int, str]  # step, text


@dataclass(frozen=True)
class JobProgress:
    """What is known about a job at one moment; None: not known (yet)."""

    job: Job
    phase: str  # "waiting", "preparing", "training", "finishing" or "over"
    position: int  # in the queue, from 1; 0: not queued
    done: float  # share of the budget, 0 to 1
    step: int
    seconds: float  # of training, without pauses
    remaining: float | None  # seconds, approximately
    characters_per_second: float | None
    train_loss: float | None  # the latest, in nats per token
    validation_loss: float | None  # the latest; in the end, that of the final evaluation
    train: list[Point]
    validations: list[dict[str, Any]]  # from metrics.jsonl, without the training loss, which `train` has
    samples: list[Sample]  # from the first to the latest
    model: str  # a description of the network
    warnings: list[str]
    error: str  # one line, if the job failed or was interrupted
    log: list[str]  # the last lines of the output


class ProgressReader:
    """Reads the progress of one job, remembering the metrics read so far."""

    def __init__(self, store: JobStore, id: str):
        self._store, self._id = store, id
        self._lock = threading.Lock()
        self._metrics = _Metrics()

    def read(self, job: Job, position: int = 0) -> JobProgress:
        """The current progress of `job`, which is at this position of the queue."""
        run = self._store.run_of(job)
        with self._lock:
            metrics = self._metrics
            metrics.update(run.metrics)
            facts = read_facts(run)
            age = _age(run.metrics, job)
            seconds = float(metrics.last.get("seconds", 0.0)) + min(age or 0.0, _MAX_STEP_TIME)
            done, remaining = _done(job, metrics, seconds, facts)
            speed = metrics.last.get("tokens_per_second")
            begun = age is not None or _age(run.facts, job) is not None
            return JobProgress(
                job=job,
                phase=_phase(job, done, begun),
                position=position,
                done=done,
                step=metrics.last.get("step", 0),
                seconds=seconds,
                remaining=remaining,
                characters_per_second=speed * facts.characters_per_token if speed and facts else None,
                train_loss=metrics.last.get("train_loss"),
                validation_loss=metrics.validations[-1]["validation_loss"] if metrics.validations else None,
                train=metrics.train.points(),
                validations=list(metrics.validations),
                samples=samples_in(_tail(run.samples, size=_SAMPLES)),
                model=facts.model if facts else "",
                warnings=[self._store.uploads.with_names(line) for line in facts.warnings] if facts else [],
                error=job.message,
                log=self._last_log_lines(job),
            )

    def _last_log_lines(self, job: Job) -> list[str]:
        """The last lines that the most recent start of the job has printed."""
        text = _tail(self._store.log_of(self._id), job.log_from).rstrip("\n")
        return text.split("\n")[-_LOG_LINES:] if text else []  # str.splitlines also splits at form feeds


class _Metrics:
    """The content of metrics.jsonl, as far as it has been read."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.offset = 0
        self.last_line = b""
        self.last: dict[str, Any] = {}  # the last record of the training loop
        self.train = _Curve()
        self.validations: list[dict[str, Any]] = []

    def update(self, path: Path) -> None:
        """Read the lines added since the last call; start over if the job was resumed from a checkpoint
        before them and they are gone."""
        try:
            with open(path, "rb") as file:
                file.seek(self.offset - len(self.last_line))
                if file.read(len(self.last_line)) != self.last_line:
                    self.reset()
                    file.seek(0)
                while block := file.read(_BLOCK):
                    complete = block[: block.rfind(b"\n") + 1]
                    for line in complete.splitlines(keepends=True):
                        self._add(line)
                    if len(block) < _BLOCK or not complete:
                        break
                    file.seek(self.offset)
        except FileNotFoundError:
            if self.offset:
                self.reset()
        except OSError:
            pass  # try again next time

    def _add(self, line: bytes) -> None:
        self.offset, self.last_line = self.offset + len(line), line
        try:
            record = json.loads(line)
            step, seconds = int(record["step"]), float(record["seconds"])
        except (ValueError, TypeError, KeyError):
            return
        if "train_loss" in record:
            self.last = record
            self.train.add((step, seconds, float(record["train_loss"])))
        if "validation_loss" in record:
            self.validations.append({name: value for name, value in record.items() if name != "train_loss"})
            del self.validations[:-_MAX_VALIDATIONS]


class _Curve:
    """A curve of limited size: each point is the mean of a group of neighbors."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._group_size = 1
        self._group: list[Point] = []  # the incomplete last one

    def add(self, point: Point) -> None:
        self._group.append(point)
        if len(self._group) < self._group_size:
            return
        self._points.append(_mean(self._group))
        self._group = []
        if len(self._points) >= MAX_POINTS:
            self._points = [_mean(self._points[i : i + 2]) for i in range(0, len(self._points), 2)]
            self._group_size *= 2

    def points(self) -> list[Point]:
        return self._points + ([_mean(self._group)] if self._group else [])


def _mean(points: list[Point]) -> Point:
    """The mean loss, at the step and time of the last point."""
    step, seconds, _ = points[-1]
    return step, seconds, sum(loss for _, _, loss in points) / len(points)


def _age(path: Path, job: Job) -> float | None:
    """The seconds since a running job wrote this file; None if it has not done so since its start."""
    try:
        written = path.stat().st_mtime
    except OSError:
        return None
    if job.state != RUNNING or written < (job.started or 0.0):
        return None
    return max(time.time() - written, 0.0)


def _done(job: Job, metrics: _Metrics, seconds: float, facts: Facts | None) -> tuple[float, float | None]:
    """The share of the budget that is spent, and the seconds that remain."""
    if job.state == DONE:
        return 1.0, 0.0
    total = facts.total_steps if facts else job.settings.get("steps")
    if total:
        done = min(metrics.last.get("step", 0) / total, 1.0)
        return done, metrics.last["seconds"] * (1 - done) / done if done else None
    if job.settings.get("epochs"):
        return 0.0, None  # the number of steps is not known yet
    budget = job.settings.get("max_time") or DEFAULT_TIME
    return min(seconds / budget, 1.0), max(budget - seconds, 0.0)


def _phase(job: Job, done: float, begun: bool) -> str:
    if job.state == QUEUED:
        return "waiting"
    if job.state != RUNNING:
        return "over"
    if job.asked or (begun and done >= 1):
        return "finishing"
    return "training" if begun else "preparing"


def _tail(path: Path, begin: int = 0, size: int = _TAIL) -> str:
    """The last `size` bytes of a file, not from before offset `begin`; '' if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - size, begin))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
