"""The folder of a run: the model at its top, everything about its training in `training/`."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.config.schema import RUNS, RunConfig
from lm.config.settings_file import as_yaml, read_settings
from lm.console.invocation import quoted, resume_command
from lm.errors import ModelError, UserError
from lm.files.atomic import append_text, folder_or_previous, remove_partial, write_text
from lm.files.model_files import is_inside, read_json
from lm.files.paths import expanded, open_to_change
from lm.storage.model_folder import WEIGHTS
from lm.storage.run_lock import check_free, claimed, lock_of
from lm.tokenization.tokenizer import Tokenizer

# Values for runs that are older than a setting, where they differ from its default.
_OF_OLDER_RUNS = {"sampled_softmax": 0}


@dataclass(frozen=True)
class Run:
    """The paths in a run's folder, and the files that grow during training."""

    folder: Path

    @property
    def training(self) -> Path:
        """The folder of everything about the training."""
        return self.folder / "training"

    @property
    def config(self) -> Path:
        """All settings, as YAML."""
        return self.training / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: the losses and the learning rate."""
        return self.training / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """The samples generated during training."""
        return self.training / "samples.txt"

    @property
    def plot(self) -> Path:
        """The loss curve, as SVG."""
        return self.training / "loss.svg"

    @property
    def facts(self) -> Path:
        """What was printed before the first step, and warnings since, as JSON."""
        return self.training / "facts.json"

    @property
    def checkpoint(self) -> Path:
        """The folder of the last checkpoint; while that is replaced, see `checkpoint_of`."""
        return self.training / "checkpoint"

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml. Raises OSError."""
        write_text(self.config, as_yaml(config.flat()))

    def settings(self) -> dict[str, Any]:
        """The settings in config.yaml by their names. Raises UserError."""
        return _OF_OLDER_RUNS | read_settings(self.config, self.training)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        append_text(self.metrics, json.dumps(record) + "\n")

    def add_sample(self, step: int, text: str) -> None:
        """Append one sample to samples.txt."""
        append_text(self.samples, f"--- step {step}\n{text}\n\n")

    def lengths(self) -> dict[str, int]:
        """The sizes (bytes) of the files that grow, for the checkpoint."""
        return {p.name: p.stat().st_size if p.exists() else 0 for p in (self.metrics, self.samples)}

    def remove_partial(self) -> None:
        """Delete what killed processes have left of files. Only the owner of the run calls it."""
        for folder in (self.folder, self.training):
            remove_partial(folder)

    def cut(self, lengths: dict[str, int]) -> None:
        """Shorten the files that grow to their sizes at a checkpoint, without a half line at the end.

        Raises ModelError if one cannot be changed, or is a link.
        """
        for path in (self.metrics, self.samples):
            if not os.path.lexists(path):
                continue
            try:
                with open(path, "r+b", opener=open_to_change) as file:
                    # After a power loss, a file may be shorter: it must not be filled up with zeros.
                    kept = file.read(min(lengths[path.name], os.fstat(file.fileno()).st_size))
                    file.truncate(kept.rfind(b"\n") + 1)
            except OSError as error:
                raise ModelError(f"{path} cannot be changed: {error.strerror}.") from error


def check_out(config: RunConfig, overwrite: bool) -> None:
    """Raise UserError if the folder of a new run cannot be created, must not be used or is used by another
    run."""
    folder = expanded(config.training.out) if config.training.out else RUNS
    for path in (folder, *folder.parents):
        if os.path.islink(path) and not os.path.exists(path):
            raise UserError(
                f"{path} is a link to a folder that does not exist: create that folder, or name another one"
                " with --out."
            )
        if os.path.exists(path) and not path.is_dir():
            raise UserError(f"{path} is a file: name another folder with --out.")
    if not config.training.out:
        return
    check_free(folder)
    if os.path.exists(folder) and any(folder.iterdir()):
        # A run that could not be created, because the disk was full, is an empty folder `training`.
        files = (path for path in folder.rglob("*") if not path.is_dir() and path != lock_of(folder))
        if not Run(folder).config.is_file() and any(files):
            if overwrite:
                raise UserError(f"{folder} is not a run; --overwrite replaces only runs.")
            raise UserError(f"{folder} exists and is not a run: name another folder with --out.")
        if not overwrite:
            raise UserError(
                f"{folder} exists: name another with --out, replace it with --overwrite, or continue it with"
                f" `{resume_command(folder)}`."
            )


def create_run(
    config: RunConfig, text_name: str, tokenizer: Tokenizer, overwrite: bool, claims: ExitStack
) -> tuple[Run, str]:
    """Create the folder of a new run, whose owner this process is until `claims` ends; also returns a note
    for the user, or ''. Raises UserError if the folder exists, has an owner or cannot be created."""
    check_out(config, overwrite)
    stamp, out = time.strftime("%Y%m%d-%H%M%S"), config.training.out
    folder = expanded(out) if out else RUNS / f"{text_name}-{config.model.cell}-{stamp}"
    try:
        folder = folder if out else _new_folder(folder)
        run = Run(folder)
        # Of two processes that create it at the same time, one fails here, or cannot claim it.
        run.training.mkdir(parents=True, exist_ok=overwrite and bool(out))
        note = claims.enter_context(claimed(folder))
        _clear(run)
        run.write_config(config)
        tokenizer.save(folder / "tokenizer.json")
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be created: {error.strerror}.") from error
    return run, note


def _new_folder(folder: Path) -> Path:
    """Create the folder, or one of another name if it exists: several runs may start within a second.
    Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path, number = folder, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = folder.with_name(f"{folder.name}-{number}")


def _clear(run: Run) -> None:
    """Delete everything in a run's folder but the lock."""
    lock = lock_of(run.folder)
    for path in [*run.folder.iterdir(), *run.training.iterdir()]:
        if path.is_dir() and not path.is_symlink():
            if path != run.training:
                shutil.rmtree(path, ignore_errors=True)
        elif path != lock:
            path.unlink()


def find_run(folder: str | Path | None) -> Run:
    """The named run, or the newest in runs/. Raises UserError."""
    if folder is not None:
        run = Run(expanded(folder))
        if not os.path.isfile(run.config):
            raise ModelError(f"{folder} is not a run: it has no training/config.yaml.")
        if not is_inside(os.path.realpath(run.training), run.folder):
            raise ModelError(f"{run.training} is a link that leaves its folder: replace it with the folder.")
    else:
        runs = [Run(path) for path in RUNS.iterdir()] if RUNS.is_dir() else []
        runs = [run for run in runs if run.config.is_file()]
        if not runs:
            raise UserError(f"there is no run to resume in {RUNS}/.")
        run = max(runs, key=lambda run: run.config.stat().st_mtime)
    return run


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to the first damaged one, such as a half-written last one."""
    records: list[dict[str, Any]] = []
    if run.metrics.is_file():
        for line in run.metrics.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict):
                break
            records.append(record)
    return records


def samples_in(text: str) -> list[tuple[int, str]]:
    """The step and the text of each complete sample in a samples.txt, or in the end of one."""
    _, *samples = ("\n" + text).split("\n--- step ")
    if samples and not samples[-1].endswith("\n\n"):  # half-written
        samples.pop()
    parts = (sample.partition("\n") for sample in samples)
    return [(int(step), text.rstrip("\n")) for step, _, text in parts if step.isascii() and step.isdigit()]


def validations(records: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The records of a run's validations, one per step and in order; and, separately, the last one if it
    covered more of the text than the others."""
    found = [record for record in records if "validation_loss" in record]
    covered = [record.get("validation_tokens", 0) for record in found]
    whole = found.pop() if len(found) > 1 and covered[-1] > covered[-2] > 0 else None
    by_step = {record["step"]: record for record in found}
    return [by_step[step] for step in sorted(by_step)], whole


def progress_values(checkpoint: Path, name: str = "progress.json") -> dict[str, Any]:
    """The values in a checkpoint's progress.json. Raises ModelError."""
    # The random generator of a mix of streams has integers of 128 bits, without a sign.
    return read_json(checkpoint / name, checkpoint, bits=129)


def checkpoint_of(run: Run) -> Path:
    """The folder of the last checkpoint. Raises ModelError if there is none."""
    folder = folder_or_previous(run.checkpoint)
    if folder is None:
        if not os.path.exists(run.folder / WEIGHTS):
            raise ModelError(
                f"{run.folder} has neither a checkpoint nor weights, because it was stopped before the first"
                " were saved or there was no space for them: start again with --overwrite."
            )
        raise ModelError(
            f"{run.folder} has no checkpoint, because it was stopped before the first one was saved or there"
            " was no space for it: start a new run, from its best weights with --init-from"
            f" {quoted(run.folder)}."
        )
    return folder
