"""`--track`: the figures and samples of a training in a tracker, as well as in its folder.

The trackers are optional packages, imported when one is asked for. What goes wrong in one costs a
warning, never the training. A run that goes on, resumed or taken back by the guard, goes on in the
tracker too, and no step is sent twice: training/tracker.json remembers how far it is.
"""

from __future__ import annotations

import html
import importlib.util
import io
import json
import secrets
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import yaml

from lm.config.schema import RunConfig
from lm.errors import UserError, one_line
from lm.run_folder import Run

_PROJECT = "lm"
_PACKAGES = {"trackio": "trackio", "tensorboard": "tensorboard", "wandb": "wandb"}


class _Sink(Protocol):
    """What a tracker can do."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Take the figures of a step."""

    def sample(self, text: str, step: int) -> None:
        """Take a sample of what the model writes."""

    def back_to(self, step: int) -> None:
        """Forget what came after a step, if it can."""

    def close(self) -> None:
        """Send what is left."""


def check_installed(track: str) -> None:
    """Raise UserError if the package of a tracker is missing."""
    package = _PACKAGES.get(track)
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--track {track} needs a package that is not here: pip install {package}")


class Tracker:
    """Sends what is new to a tracker, or nothing anywhere."""

    def __init__(self, run: Run, config: RunConfig, step: int, warn: Callable[[str], None]):
        self._name, self._warn, self._sink = config.training.track, warn, None
        self._quiet, self._file = config.training.quiet, run.training / "tracker.json"
        if self._name == "none":
            return
        self._memory = self._remembered() if step else {}
        if not self._memory:
            self._memory = {"run": f"{run.folder.resolve().name}-{secrets.token_hex(3)}", "sent": {}}
        self._try(lambda: self._open(run, config, step))

    def log(self, record: dict[str, Any]) -> None:
        """Send a line of metrics.jsonl."""
        figures = {name: value for name, value in record.items() if name != "step"}
        self._send("figures", record["step"], lambda sink: sink.log(figures, record["step"]))

    def sample(self, text: str, step: int) -> None:
        """Send a sample."""
        self._send("samples", step, lambda sink: sink.sample(text, step))

    def back_to(self, step: int) -> None:
        """The training goes on from an earlier step."""
        if self._sink:
            self._try(lambda: self._sink.back_to(step))

    def close(self) -> None:
        """Send what is left."""
        if self._sink:
            self._try(lambda: self._sink.close())

    def _open(self, run: Run, config: RunConfig, step: int) -> None:
        make = {"tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb}[self._name]
        self._sink = make(run, self._memory["run"], config, step)

    def _send(self, what: str, step: int, send: Callable[[_Sink], None]) -> None:
        sent = self._memory["sent"] if self._sink else {}
        # TensorBoard forgets figures and takes those steps again; otherwise they are there already.
        forgets = what == "figures" and isinstance(self._sink, _TensorBoard)
        if self._sink and (forgets or step > sent.get(what, -1)):
            sent[what] = step
            self._try(lambda: send(self._sink))
            self._try(lambda: self._file.write_text(json.dumps(self._memory), encoding="utf-8"))

    def _remembered(self) -> dict[str, Any]:
        try:
            memory = json.loads(self._file.read_text(encoding="utf-8"))
            return {"run": str(memory["run"]), "sent": dict(memory["sent"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _try(self, act: Callable[[], None]) -> None:
        try:
            with redirect_stdout(io.StringIO()) if self._quiet else nullcontext():
                act()
        except Exception as error:  # of a package that may raise anything
            self._sink = None
            self._warn(f"{self._name} fails, training goes on without it: {one_line(error)}")


class _TensorBoard:
    """Event files in training/tensorboard. A new file hides what older ones tell of later steps."""

    def __init__(self, run: Run, name: str, config: RunConfig, step: int):
        self._folder: Path = run.training / "tensorboard"
        self._open(step)
        if not step:
            settings = yaml.safe_dump(config.flat(), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", f"```\n{settings}```", 0)

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def sample(self, text: str, step: int) -> None:
        self._writer.add_text("sample", f"```\n{text}\n```", step)

    def back_to(self, step: int) -> None:
        self._writer.close()
        self._open(step)

    def close(self) -> None:
        self._writer.close()

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)


class _Trackio:
    """A project in trackio's local database, or wherever its environment variables say."""

    def __init__(self, run: Run, name: str, config: RunConfig, step: int):
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            _PROJECT, name=name, config=config.flat(), resume="allow", auto_log_gpu=False, auto_log_cpu=False
        )

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def sample(self, text: str, step: int) -> None:
        self._run.log({"sample": self._trackio.Markdown(f"```\n{text}\n```")}, step=step)

    def back_to(self, step: int) -> None:
        """It keeps what it has."""

    def close(self) -> None:
        self._trackio.finish()


class _Wandb:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it in the folder of the run."""

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

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def sample(self, text: str, step: int) -> None:
        self._run.log({"sample": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def back_to(self, step: int) -> None:
        """It keeps what it has."""

    def close(self) -> None:
        self._run.finish()
