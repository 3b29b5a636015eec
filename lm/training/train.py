"""`lm.train`: what the command `lm train` does, as a function that returns the model."""

from __future__ import annotations

import errno
import inspect
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from lm.config.schema import SETTINGS, checked
from lm.config.settings import check_not_empty, flag_of, shown
from lm.console.invocation import called_from_python
from lm.console.wording import did_you_mean
from lm.distributed import ALONE, rank_count
from lm.errors import UserError
from lm.language_model import LanguageModel, load
from lm.training.callbacks import Callback, Callbacks
from lm.training.launch import launch
from lm.training.signals import BROKEN_PIPE


def train(
    dataset: str | Path | Sequence[str | Path] | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | bool = False,
    on_step: Callback | None = None,
    on_validation: Callback | None = None,
    **settings: Any,
) -> LanguageModel:
    """Train a model, as `lm train` does: the same settings and seed give the same weights.

    The model that is returned has the best weights of the training. Its `folder` is that of the run, and its
    `history` has the metrics of the training.

    >>> model = lm.train("my.txt", cell="gru", max_time="2m")
    >>> validations = pandas.DataFrame(model.history).dropna()  # the rows that have both losses
    >>> validations.plot(x="step", y=["train_loss", "validation_loss"])

    Args:
        dataset: what `--dataset` names, or a list of several.
        preset: a named recipe, which `config` and `settings` override.
        config: a YAML file with settings, which `settings` override.
        overwrite: replace an existing run in the folder `out`.
        resume: the folder of a run to continue exactly where it stopped; True: the newest run in runs/.
        on_step: called after every step with a dictionary of its `step`, `tokens`, `seconds`, `train_loss`
            and `learning_rate`. On a GPU this waits for every step and costs some speed.
        on_validation: called after every validation with the row of `history` that it adds.
        settings: the fields of DataConfig, ModelConfig and TrainingConfig: `cell`, `hidden_size`, `steps`,
            `lr`, `seed`, `quiet`, … `lm train --help` explains each.

    A callback that returns False stops the training. It then ends as if the budget were spent, and the model
    is returned.

    Ctrl-C, or the stop button of a notebook, saves the run and raises KeyboardInterrupt: `resume` continues
    it, and `lm.load` loads its best weights so far. So does a closed standard output (`| head`), which raises
    BrokenPipeError.

    Raises UserError for unknown or invalid settings, and for text that cannot be read. Its messages write
    settings as flags: `--hidden-size` is `hidden_size`.
    """
    if unknown := next((name for name in settings if name not in SETTINGS), None):
        known = inspect.signature(train).parameters
        raise UserError(f"lm.train: unknown setting '{unknown}'{did_you_mean(unknown, known)}")
    if rank_count() > 1:
        raise UserError("lm.train runs in a single process; with torchrun, use the command: -m lm train.")
    for name, value, kinds in (
        ("preset", preset, (str,)),
        ("config", config, (str, os.PathLike)),
        ("resume", resume, (str, os.PathLike, bool)),
    ):
        if value is not None and not isinstance(value, kinds):
            raise UserError(f"{flag_of(name)} must be a string, got {shown(value)}.")
    for name, callback in (("on_step", on_step), ("on_validation", on_validation)):
        if callback is not None and not callable(callback):
            raise UserError(f"lm.train: {name} must be a function, got '{shown(callback)}'.")
    if dataset is not None:
        settings["dataset"] = dataset
    if isinstance(settings.get("device"), torch.device):
        settings["device"] = str(settings["device"])
    named = {"preset": preset, "config": config}
    options = {name: value for name, value in named.items() if value is not None} | checked(settings)
    if overwrite:
        options["overwrite"] = True
    if resume not in (False, None):
        options["resume"] = None if resume is True else resume
    check_not_empty(options)
    with called_from_python(), _own_torch():
        ended = launch(options, ALONE, Callbacks(on_step, on_validation))
    assert ended is not None  # it was asked to train
    if ended.signal == BROKEN_PIPE:
        raise BrokenPipeError(errno.EPIPE, "the reader of standard output has closed it")
    if ended.signal:
        signal.raise_signal(ended.signal)
    return load(ended.run.folder, ended.device)


@contextmanager
def _own_torch() -> Iterator[None]:
    """Use torch as the command does, whatever the caller has set: with gradients, float32 and the CPU as the
    defaults, and no autocast. Restore that, torch's random state and the current GPU afterward."""
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    dtype = torch.get_default_dtype()
    with ExitStack() as own:
        own.enter_context(torch.inference_mode(False))
        own.enter_context(torch.enable_grad())
        own.enter_context(torch.random.fork_rng([gpu] if torch.cuda.is_initialized() else []))
        for kind in ("cpu", "cuda"):
            own.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # the context makes each operation slower
            own.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if torch.cuda.is_initialized():
                torch.cuda.set_device(gpu)


def _signature() -> inspect.Signature:
    """The signature of `train` with all settings, for `help` and for completion in a notebook."""
    own = inspect.signature(train).parameters.values()
    known = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=setting.default)
        for name, setting in SETTINGS.items()
        if name != "dataset"
    ]
    return inspect.Signature([*list(own)[:-1], *known], return_annotation=LanguageModel)


train.__signature__ = _signature()  # type: ignore[attr-defined]
