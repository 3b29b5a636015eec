"""How a training is getting on, read from what its run leaves behind, a little at a time.

metrics.jsonl grows for hours and is read on from where the last reading ended; the curve's points are
joined in pairs whenever there are too many of them, so a day takes no more memory than a minute.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm.config.schema import DEFAULT_TIME
from lm.errors import UserError
from lm.run_folder import Run, read_config

from .job import DONE, QUEUED, RUNNING, Job, Store

_MOST_POINTS = 600  # of the training loss
_MOST_VALIDATIONS = 2000
_TAIL = 16 << 10  # bytes at the end of samples.txt and log.txt that are looked at
_MOST_SAMPLES = 5
_LINES = 20  # of the log
_LONGEST_STEP = 60.0  # seconds between two lines of metrics for which the clock is believed to go on
_BLOCK = 4 << 20  # bytes of metrics.jsonl in one reading
_SAMPLE = re.compile(r"^--- step (\d+)\n", re.MULTILINE)
# The table that train.py prints before it begins.
_ROW = re.compile(
    r"^(Text|Tokens|Unknown|Characters|Commonest|Rarest|Repeated|Model|Compute|Budget) {2,}(.*)$",
    re.MULTILINE,
)
_WARNING = re.compile(r"^(?:w|W)arning: (.*)$", re.MULTILINE)
_DECIDED = (  # what `auto` may stand for, and the batch
    "cell", "layers", "hidden_size", "embedding_size", "dropout", "input_dropout", "output_dropout",
    "weight_dropout", "lr", "batch_size", "bptt", "seed",
)  # fmt: skip

Point = tuple[int, float, float]  # step, seconds on the clock, loss in nats per token


@dataclass(frozen=True)
class Live:
    """What there is to see of a training at one moment. None: not known (yet)."""

    job: Job
    phase: str  # 'waiting', 'preparing', 'training', 'finishing', or 'over': whatever job.state says
    place: int  # in the queue, from 1; 0: it does not wait
    done: float  # share of the budget, 0 to 1
    step: int
    total_steps: int | None  # of a budget in steps or epochs
    seconds: float  # on the training's clock: pauses are left out
    left: float | None  # seconds that are left, about (the ETA)
    tokens_per_second: float | None
    characters_per_second: float | None
    train_loss: float | None  # nats per token, the last
    validation_loss: float | None  # the last, in the end that of the whole text
    train: list[Point]
    validation: list[dict[str, Any]]  # records of metrics.jsonl, in its order
    samples: list[tuple[int, str]]  # step and text of the last ones, the newest last
    rows: dict[str, str]  # the data report and what else train.py said before it began
    warnings: list[str]
    decided: dict[str, Any]  # the settings as the run has them, a number for every `auto`
    error: str  # one line, if it failed or was interrupted
    log: list[str]  # its last lines
    curve: Path | None  # loss.svg


class Follower:
    """The figures of one training, as far as they have been read."""

    def __init__(self, store: Store, id: str):
        self._store, self._id = store, id
        self._lock = threading.Lock()
        self._figures = _Figures()
        self._head: tuple[int, str] = (-1, "")  # where the last start begins in the log, and what it says
        self._config: tuple[Any, dict[str, Any]] = (None, {})

    def read(self, job: Job, place: int = 0) -> Live:
        """What there is to see now of `job`, which is at this place of the queue."""
        run = self._store.run_of(job)
        with self._lock:
            figures = self._figures
            figures.read_on(run.metrics)
            head, last = self._log(job)
            config = self._decided(run) or job.settings
            rows = dict(_ROW.findall(head))
            fresh = _age(run.metrics, job)
            seconds = float(figures.last.get("seconds", 0.0)) + min(fresh or 0.0, _LONGEST_STEP)
            total = _total_steps(config, rows)
            done, left = _progress(job, config, figures, seconds, total)
            speed = figures.last.get("tokens_per_second")
            per_token = _characters_per_token(rows)
            return Live(
                job=job,
                phase=_phase(job, done, begun=fresh is not None or "Budget" in rows),
                place=place,
                done=done,
                step=figures.last.get("step", 0),
                total_steps=total,
                seconds=seconds,
                left=left,
                tokens_per_second=speed,
                characters_per_second=speed * per_token if speed and per_token else None,
                train_loss=figures.last.get("train_loss"),
                validation_loss=figures.validation[-1]["validation_loss"] if figures.validation else None,
                train=figures.train.points(),
                validation=list(figures.validation),
                samples=_samples(run.samples),
                rows=rows,
                warnings=list(dict.fromkeys(_WARNING.findall("\n".join([head, *last])))),
                decided={name: config[name] for name in _DECIDED if name in config},
                error=job.message,
                log=last,
                curve=run.plot if run.plot.is_file() else None,
            )

    def _decided(self, run: Run) -> dict[str, Any]:
        """The run's own settings; none before it has any."""
        try:
            version = run.config.stat().st_mtime_ns
            if self._config[0] != version:
                self._config = version, read_config(run.config)
        except (OSError, UserError):
            return {}
        return self._config[1]

    def _log(self, job: Job) -> tuple[str, list[str]]:
        """The beginning of what the last start printed, and the last lines of it."""
        path = self._store.log_of(self._id)
        if self._head[0] != job.log_from or len(self._head[1]) < _TAIL // 2:
            self._head = job.log_from, _part(path, job.log_from, _TAIL)
        size = _size(path)
        lines = _part(path, max(size - _TAIL, job.log_from), _TAIL).splitlines()
        return self._head[1], lines[-_LINES:]


@dataclass
class _Figures:
    """What metrics.jsonl tells, up to the place `offset` of it."""

    offset: int = 0
    line: bytes = b""  # the last one that was read
    last: dict[str, Any] = field(default_factory=dict)  # the last record of the loop
    train: _Curve = field(default_factory=lambda: _Curve())
    validation: list[dict[str, Any]] = field(default_factory=list)

    def read_on(self, path: Path) -> None:
        """Read what has been added; begin anew if it is not what was read before, because the training
        went on from an earlier checkpoint."""
        try:
            with open(path, "rb") as file:
                file.seek(self.offset - len(self.line))
                if file.read(len(self.line)) != self.line:
                    self.__init__()
                    file.seek(0)
                while block := file.read(_BLOCK):
                    whole = block[: block.rfind(b"\n") + 1]
                    for line in whole.splitlines(keepends=True):
                        self._add(line)
                    if len(block) < _BLOCK or not whole:
                        break
                    file.seek(self.offset)
        except FileNotFoundError:
            if self.offset:
                self.__init__()
        except OSError:
            pass  # the next reading may be luckier

    def _add(self, line: bytes) -> None:
        self.offset, self.line = self.offset + len(line), line
        try:
            record = json.loads(line)
            step, seconds = int(record["step"]), float(record["seconds"])
        except (ValueError, TypeError, KeyError):
            return
        if "train_loss" in record:
            self.last = record
            self.train.add((step, seconds, float(record["train_loss"])))
        if "validation_loss" in record:
            self.validation.append(record)
            del self.validation[:-_MOST_VALIDATIONS]


class _Curve:
    """Points of which there are never too many: each is the mean of so many neighbours."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._group = 1
        self._open: list[Point] = []  # that do not make a whole group yet

    def add(self, point: Point) -> None:
        self._open.append(point)
        if len(self._open) < self._group:
            return
        self._points.append(_mean(self._open))
        self._open = []
        if len(self._points) >= _MOST_POINTS:
            self._points = [_mean(self._points[i : i + 2]) for i in range(0, len(self._points), 2)]
            self._group *= 2

    def points(self) -> list[Point]:
        return self._points + ([_mean(self._open)] if self._open else [])


def _mean(points: list[Point]) -> Point:
    """At the last one's place."""
    return (*points[-1][:2], sum(point[2] for point in points) / len(points))


def _age(metrics: Path, job: Job) -> float | None:
    """How long ago a running training wrote its last line of metrics: its clock goes on since then.
    None if it has written none since its start."""
    try:
        written = metrics.stat().st_mtime
    except OSError:
        return None
    if job.state != RUNNING or written < (job.started or 0.0):
        return None
    return max(time.time() - written, 0.0)


def _total_steps(config: dict[str, Any], rows: dict[str, str]) -> int | None:
    """The budget in steps; that of epochs is what train.py made of it."""
    if config.get("steps"):
        return config["steps"]
    if config.get("epochs") and (found := re.match(r"([\d,]+) steps", rows.get("Budget", ""))):
        return int(found[1].replace(",", ""))
    return None


def _progress(
    job: Job, config: dict[str, Any], figures: _Figures, seconds: float, total: int | None
) -> tuple[float, float | None]:
    """The share of the budget that is spent, and the seconds that are left."""
    if job.state == DONE:
        return 1.0, 0.0
    if total:
        step = figures.last.get("step", 0)
        done = min(step / total, 1.0)
        left = figures.last["seconds"] * (1 - done) / done if done else None
    elif config.get("epochs"):
        return 0.0, None  # until it is known how many steps that are
    else:
        budget = config.get("max_time") or DEFAULT_TIME
        done = min(seconds / budget, 1.0)
        left = max(budget - seconds, 0.0)
    return done, left


def _phase(job: Job, done: float, begun: bool) -> str:
    if job.state == QUEUED:
        return "waiting"
    if job.state != RUNNING:
        return "over"
    if job.asked or (begun and done >= 1):
        return "finishing"
    return "training" if begun else "preparing"


def _characters_per_token(rows: dict[str, str]) -> float | None:
    found = re.search(r"([\d.]+) characters each", rows.get("Tokens", ""))
    return float(found[1]) if found else None


def _samples(path: Path) -> list[tuple[int, str]]:
    """The last samples in samples.txt; one that is half written is left out."""
    size = _size(path)
    text = _part(path, max(size - _TAIL, 0), _TAIL)
    _, *parts = _SAMPLE.split(text)
    samples = [(int(step), body) for step, body in zip(parts[::2], parts[1::2], strict=True)]
    return [(step, body[:-2]) for step, body in samples if body.endswith("\n\n")][-_MOST_SAMPLES:]


def _part(path: Path, begin: int, size: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
