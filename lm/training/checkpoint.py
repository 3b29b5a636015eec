"""Checkpoints: everything an exact resume needs, in one folder that is replaced as a whole.

state.safetensors   weights, optimizer state, recurrent state of all streams, random states
progress.json       step, clock, running sums, sizes of the files that grow, and the digest of both files
good.safetensors    the same two for the state that lm/training/rollback.py would return to,
good.json           if that is another step

Several ranks write one checkpoint: what they share, the states of all streams, and each rank's random state.
So any number of ranks can resume it; only random draws then differ.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch

from lm.console.invocation import quoted
from lm.errors import ModelError, one_line
from lm.files import digests
from lm.files.atomic import replace_folder
from lm.files.json_types import has_type
from lm.files.tensor_files import read_tensors, write_tensors
from lm.storage.run_folder import progress_values
from lm.training.state import Learner, Progress, Snapshot, Trainer

# Fields that Progress has gained since the first runs.
_ADDED = {"budget", "extended", "start_loss", "base_model", "tokenizer", "settings"}
_NOW, _GOOD = ("state.safetensors", "progress.json"), ("good.safetensors", "good.json")
_MAX_COUNT = 2**53
_BLANK = b"0" * 64  # in place of a file's digest in itself


def take_snapshot(trainer: Trainer) -> Snapshot:
    """The training as it is now. Not a copy: the next step changes these tensors."""
    progress, learner = trainer.progress, trainer.learner
    progress.seconds, progress.loss_sum = trainer.seconds, trainer.loss_sum.item()
    if not progress.finished:  # the last line of metrics is not part of what a longer training continues
        progress.lengths = trainer.run.lengths()
    progress.place, data = learner.windows.position()
    tensors = learner.tensors()
    tensors |= {f"data.{name}": tensor for name, tensor in data.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if learner.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return Snapshot(copy.deepcopy(progress), tensors)


def restore(trainer: Trainer, snapshot: Snapshot) -> None:
    """Return the network, optimizer, recurrent state, position in the text and random states to a
    snapshot, which stays unchanged. Raises KeyError or RuntimeError if it belongs to another network."""
    tensors, learner = snapshot.tensors, trainer.learner
    device = learner.device
    with torch.no_grad():
        for name, weight in learner.network.named_parameters():
            weight.copy_(tensors[f"network.{name}"])
            prefix, state = f"optimizer.{name}.", learner.optimizer.state[weight]
            saved = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            for key in state.keys() - saved.keys():
                state[key].zero_()  # as before the first step
            for key, value in saved.items():
                if key in state:
                    state[key].copy_(value)
                else:
                    # AdamW keeps its step count on the CPU unless it is fused on a GPU.
                    on_cpu = key == "step" and device.type != "cuda"
                    state[key] = value.to("cpu" if on_cpu else weight.device, copy=True)
        for name, tensor in learner.tensors().items():
            if name.startswith(("state.", "scale.")) and name in tensors:
                tensor.copy_(tensors[name])
            elif name.startswith("state."):  # a checkpoint from before the first step has none
                tensor.zero_()
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"])
    trainer.progress = copy.deepcopy(snapshot.progress)
    trainer.loss_sum.fill_(trainer.progress.loss_sum)
    data = {k.removeprefix("data."): v.clone() for k, v in tensors.items() if k.startswith("data.")}
    learner.windows.restore(trainer.progress.place, data)


def of_all_ranks(trainer: Trainer, snapshot: Snapshot) -> Snapshot:
    """Join the snapshots of all ranks into one snapshot, the same on all ranks."""
    ranks, windows = trainer.ranks, trainer.learner.windows
    if ranks.is_single_process:
        return snapshot
    tensors = {}
    for name, tensor in snapshot.tensors.items():
        if name.startswith("state."):
            tensors[name] = ranks.all_gather(tensor, 1, windows.rows, windows.batch_size)
        elif name.startswith("random."):
            each = ranks.all_gather(tensor[None], 0, slice(ranks.rank, ranks.rank + 1), ranks.world_size)
            tensors |= {f"{name}.{rank}": state for rank, state in enumerate(each)}
        else:
            tensors[name] = tensor
    return Snapshot(snapshot.progress, tensors)


def of_this_rank(trainer: Trainer, snapshot: Snapshot) -> Snapshot:
    """This rank's part of a snapshot of all ranks. If their number has changed, random states start
    from new seeds."""
    ranks, rows = trainer.ranks, trainer.learner.windows.rows
    randoms = {name: t for name, t in snapshot.tensors.items() if name.startswith("random.")}
    tensors = {name: t for name, t in snapshot.tensors.items() if name not in randoms}
    tensors |= {name: t[:, rows] for name, t in tensors.items() if name.startswith("state.")}
    if ranks.world_size == max(1, sum(name.startswith("random.cpu.") for name in randoms)):
        own = "" if ranks.is_single_process else f".{ranks.rank}"
        tensors |= {
            name: randoms[name + own] for name in ("random.cpu", "random.cuda") if name + own in randoms
        }
    else:
        seed = seed_of(trainer.learner, snapshot.progress.step)
        devices = ("cpu", "cuda") if trainer.learner.device.type == "cuda" else ("cpu",)
        tensors |= {f"random.{d}": torch.Generator(d).manual_seed(seed).get_state() for d in devices}
    return Snapshot(snapshot.progress, tensors)


def seed_of(learner: Learner, step: int) -> int:
    """A seed for draws after `step` that differ between ranks."""
    source = np.random.SeedSequence([learner.config.training.seed, step, learner.ranks.rank])
    return int(source.generate_state(1, np.uint64)[0] >> np.uint64(1))


def save_checkpoint(folder: Path, now: Snapshot, good: Snapshot) -> None:
    """Replace the previous checkpoint. `good` is left out if it has no tensors or is the same step."""

    def fill(new: Path) -> None:
        _write(new, now, _NOW)
        if good.tensors and good.progress.step != now.progress.step:
            _write(new, good, _GOOD)

    replace_folder(folder, fill)


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Bring a new trainer to the point where a run stopped. Rank 0 reads for all. Raises ModelError."""
    now = _read(trainer, folder, _NOW)
    try:
        restore(trainer, now)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} does not match its run's config.yaml: {error}") from error
    if trainer.ranks.broadcast_object((folder / _GOOD[1]).exists):
        trainer.good = _read(trainer, folder, _GOOD)


def read_progress(folder: Path, name: str = _NOW[1]) -> Progress:
    """The progress.json of a checkpoint. Raises ModelError."""
    values = progress_values(folder, name)
    known = {field.name for field in fields(Progress)}
    digest = digests.stored_in(values, name)
    if digest is None and (unknown := values.keys() - known):  # earlier versions wrote neither
        raise ModelError(
            f"{folder / name} is damaged: it has an unknown value '{one_line(min(unknown), 40)}';"
            f" {_new_run(folder)}."
        )
    if digest is not None and not _digest_matches(folder / name, digest):
        raise ModelError(
            f"{folder / name} is damaged: its SHA-256 is not the one it holds; {_remedy(folder)}."
        )
    try:
        progress = Progress(**{name: values[name] for name in known & values.keys() | known - _ADDED})
    except KeyError as error:
        raise ModelError(f"{folder / name} is damaged: {error} is missing.") from error
    if wrong := next(_wrong_values(progress), None):
        raise ModelError(f"{folder / name} is damaged: '{wrong}' has a wrong value.")
    return progress


def _wrong_values(progress: Progress) -> Iterator[str]:
    """The names of the values that no training has. NaN is a possible loss."""
    for name, kind in get_type_hints(Progress).items():
        if not has_type(getattr(progress, name), kind, minimum=0, largest_int=_MAX_COUNT):
            yield name
    if not {"metrics.jsonl", "samples.txt"} <= progress.lengths.keys():
        yield "lengths"


def _digest_matches(path: Path, digest: Any) -> bool:
    """Whether progress.json is as it was written."""
    blank = path.read_bytes().replace(str(digest).encode(), _BLANK)
    return hashlib.sha256(blank).hexdigest() == digest


def _remedy(folder: Path) -> str:
    return (
        f'{_new_run(folder)}. If you have changed the file yourself, remove "{digests.FIELD}" from the JSON'
    )


def _new_run(folder: Path) -> str:
    run = quoted(folder.parent.parent)
    return (
        f"restore the checkpoint from a copy, or start a new run from the best weights with --init-from {run}"
    )


def _read(trainer: Trainer, folder: Path, names: tuple[str, str]) -> Snapshot:
    ranks = trainer.ranks
    progress = Progress(**ranks.broadcast_object(lambda: asdict(read_progress(folder, names[1]))))
    tensors = ranks.broadcast_tensors(lambda: _read_tensors(folder, names))
    return of_this_rank(trainer, Snapshot(progress, tensors))


def _read_tensors(folder: Path, names: tuple[str, str]) -> dict[str, torch.Tensor]:
    tensors = read_tensors(folder / names[0])
    stored = digests.stored_in(progress_values(folder, names[1]), names[0])
    digests.check(folder / names[0], lambda: stored, _remedy(folder))
    return tensors


def _write(folder: Path, snapshot: Snapshot, names: tuple[str, str]) -> None:
    digest = write_tensors(folder / names[0], snapshot.tensors)
    stored = {names[0]: digest, names[1]: _BLANK.decode()}
    text = json.dumps({**asdict(snapshot.progress), digests.FIELD: stored}, indent=2).encode()
    before, _, after = text.rpartition(_BLANK)
    (folder / names[1]).write_bytes(before + hashlib.sha256(text).hexdigest().encode() + after)
