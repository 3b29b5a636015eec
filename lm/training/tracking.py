"""`--track`: metrics and samples in an experiment tracker, in addition to the run folder.

Trackers are optional packages, imported only when one is named. If a tracker fails, training prints a
warning and continues without it. A run that resumes or rolls back continues in the tracker, and no step is
sent twice: training/tracker.json records what has been sent.
"""

from __future__ import annotations

import html
import importlib.util
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from typing import Any, Protocol

from lm.config.schema import RunConfig
from lm.config.settings_file import as_yaml
from lm.errors import ModelError, UserError, one_line
from lm.files.atomic import write_text
from lm.files.model_files import read_json
from lm.storage.run_folder import Run

_PROJECT = "lm"
_PACKAGES = ("trackio", "tensorboard", "wandb")


class _Sink(Protocol):
    """What every tracker can do."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record the metrics of a step."""

    def sample(self, text: str, step: int) -> None:
        """Record a generated sample."""

    def final(self, metrics: dict[str, float], step: int) -> None:
        """Record the results of a run that ends after a step, whose metrics it already has."""
        self.log(metrics, step)

    def back_to(self, step: int) -> None:
        """Discard everything after a step, if the tracker can."""

    def close(self) -> None:
        """Send what is left."""


def check_installed(track: str) -> None:
    """Raise UserError if the package of a tracker is missing."""
    if track in _PACKAGES and importlib.util.find_spec(track) is None:
        raise UserError(f"--track {track} needs a package that is not installed: pip install {track}")


class Tracker:
    """Sends new metrics and samples to a tracker; does nothing before `open`, or with `--track none`."""

    def __init__(self) -> None:
        self._sink: _Sink | None = None
        self._threads = ExitStack()

    def open(self, run: Run, config: RunConfig, step: int, warn: Callable[[str], None]) -> None:
        """Start tracking a run, or continue from `step`. Problems go to `warn`."""
        self._name, self._warn, self._quiet = config.training.track, warn, config.training.quiet
        self._file = run.training / "tracker.json"
        if self._name == "none":
            return
        if self._name == "tensorboard":
            self._threads.enter_context(_without_tracebacks())
        memory = self._read_memory() if step else {}
        self._memory = memory or {"run": f"{run.folder.resolve().name}-{secrets.token_hex(3)}", "sent": {}}
        self._try(lambda: self._connect(run, config, step))

    def log(self, record: dict[str, Any]) -> None:
        """Send a line of metrics.jsonl."""
        metrics = {name: value for name, value in record.items() if name != "step"}
        self._send("figures", record["step"], lambda sink: sink.log(metrics, record["step"]))

    def sample(self, text: str, step: int) -> None:
        """Send a sample."""
        self._send("samples", step, lambda sink: sink.sample(text, step))

    def final(self, metrics: dict[str, float], step: int) -> None:
        """Send the results of a run that ends after `step`."""
        self._send("results", step, lambda sink: sink.final(metrics, step))

    def back_to(self, step: int) -> None:
        """Continue from an earlier step."""
        if sink := self._sink:
            self._try(lambda: sink.back_to(step))

    def close(self) -> None:
        """Send what is left."""
        if sink := self._sink:
            self._try(sink.close)
        self._threads.close()

    def _connect(self, run: Run, config: RunConfig, step: int) -> None:
        trackers: dict[str, Any] = {"tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb}
        self._sink = trackers[self._name](run, self._memory["run"], config, step)

    def _send(self, kind: str, step: int, send: Callable[[_Sink], None]) -> None:
        if (sink := self._sink) is None:
            return
        sent = self._memory["sent"]
        # TensorBoard discards metrics and takes those steps again; the other trackers still have them.
        discards = kind != "samples" and isinstance(sink, _TensorBoard)
        if discards or step > sent.get(kind, -1):
            self._try(lambda: send(sink))
            if self._sink:  # otherwise, it has failed: a resumed run sends this step again
                sent[kind] = step
                self._try(lambda: write_text(self._file, json.dumps(self._memory)))

    def _read_memory(self) -> dict[str, Any]:
        try:
            memory = read_json(self._file, self._file.parent)
            return {"run": str(memory["run"]), "sent": dict(memory["sent"])}
        except (ModelError, ValueError, KeyError, TypeError):
            return {}

    def _try(self, action: Callable[[], None]) -> None:
        try:
            with redirect_stdout(io.StringIO()) if self._quiet else nullcontext():
                action()
        except Exception as error:  # the packages may raise anything
            self._sink = None
            self._warn(f"{self._name} failed; training continues without it: {one_line(error)}")


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """In the block, no thread of tensorboard prints its error: the next call of the writer raises it."""
    hook = threading.excepthook

    def is_writer(thread: threading.Thread | None) -> bool:
        return type(thread).__name__ == "_AsyncWriterThread"

    def shorter(error: threading.ExceptHookArgs) -> None:
        if not is_writer(error.thread):
            hook(error)

    threading.excepthook = shorter
    try:
        yield
    finally:
        for thread in filter(is_writer, threading.enumerate()):
            if getattr(thread, "exception", None):  # it ends, but may not have called the hook yet
                thread.join()
        threading.excepthook = hook


class _TensorBoard(_Sink):
    """Event files in training/tensorboard. A new file hides later steps in older files."""

    def __init__(self, run: Run, name: str, config: RunConfig, step: int):
        self._folder = run.training / "tensorboard"
        self._open(step)
        # Even if the run resumes: it may be tracked for the first time, or have a new budget.
        self._writer.add_text("config", f"```\n{as_yaml(config.flat())}```", step)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # raises an error of the thread that writes, usually at once

    def sample(self, text: str, step: int) -> None:
        self._writer.add_text("sample", f"```\n{text}\n```", step)
        self._writer.flush()

    def back_to(self, step: int) -> None:
        self._writer.close()
        self._open(step)

    def close(self) -> None:
        self._writer.close()

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)


class _RemoteRun(_Sink):
    """What trackio and wandb have in common."""

    _run: Any

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def back_to(self, step: int) -> None:
        """Not supported: later steps stay."""


class _Trackio(_RemoteRun):
    """A project in trackio's local database, or wherever its environment variables point."""

    def __init__(self, run: Run, name: str, config: RunConfig, step: int):
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            _PROJECT, name=name, config=config.flat(), resume="allow", auto_log_gpu=False, auto_log_cpu=False
        )

    def sample(self, text: str, step: int) -> None:
        self._run.log({"sample": self._trackio.Markdown(f"```\n{text}\n```")}, step=step)

    def close(self) -> None:
        self._trackio.finish()


class _Wandb(_RemoteRun):
    """A run in Weights & Biases; WANDB_MODE=offline keeps it in the run folder."""

    def __init__(self, run: Run, name: str, config: RunConfig, step: int):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=_PROJECT,
            id=name,
            name=name,
            config=config.flat(),
            dir=str(run.training),
            resume="allow",
            settings=wandb.Settings(silent=config.training.quiet),
        )

    def sample(self, text: str, step: int) -> None:
        self._run.log({"sample": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def final(self, metrics: dict[str, float], step: int) -> None:
        # `log` takes nothing more for a step that an earlier process has finished.
        self._run.summary.update(metrics)

    def close(self) -> None:
        self._run.finish()
