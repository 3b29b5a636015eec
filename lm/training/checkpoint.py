"""All that exact resuming needs, in one folder that is replaced as a whole.

state.safetensors   weights, the optimiser's moments, the recurrent state of all streams, random states
progress.json       step, clock, running sums, the place in the growing files
good.safetensors    the same of the state to which lm/training/rollback.py would go back, if that is
good.json           another one

Several ranks leave one such folder: what they hold in common, the states of all their streams, and the
random state of each. So it does not matter how many of them go on, except for what is random.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from lm.errors import ModelError
from lm.files import replace_folder
from lm.saving import read_json, read_tensors

if TYPE_CHECKING:
    from lm.training.loop import Trainer

_NOW, _GOOD = ("state.safetensors", "progress.json"), ("good.safetensors", "good.json")


@dataclass
class Progress:
    """Where a run stands."""

    corpus: str  # key of the token stream
    step: int = 0
    seconds: float = 0.0  # on the clock since the first step
    tenth: int = 0  # of the budget; validations happen when it changes
    loss_sum: float = 0.0  # of the training loss since the last line of metrics
    loss_count: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    worse: int = 0  # validations in a row that brought nothing better
    reserve: float = 0.0  # seconds that the last validation of all is expected to take
    losses: list[float] = field(default_factory=list)  # of late, by which the guard judges
    undone: int = 0  # how often the guard went back
    rate: float = 1.0  # by which it lowered the learning rate
    scaler: dict[str, Any] = field(default_factory=dict)  # the scale of the loss in float16
    finished: bool = False
    lengths: dict[str, int] = field(default_factory=dict)  # of the growing files
    place: dict[str, Any] = field(default_factory=dict)  # in a text that is streamed


@dataclass
class Snapshot:
    """A training at one step: `restore` takes a trainer there."""

    progress: Progress
    tensors: dict[str, Tensor]

    def kept(self, buffers: dict[str, Tensor] | None = None) -> Snapshot:
        """A copy that further training leaves alone, in the memory of `buffers` where they fit."""
        copies = {}
        for name, tensor in self.tensors.items():
            buffer = (buffers or {}).get(name)
            fits = buffer is not None and _kind(buffer) == _kind(tensor)
            copies[name] = buffer.copy_(tensor) if fits else tensor.clone()
        return Snapshot(self.progress, copies)


def capture(trainer: Trainer) -> Snapshot:
    """The training as it is now; the tensors are its own, so the next step changes them."""
    progress = trainer.progress
    progress.seconds, progress.loss_sum = trainer.seconds, trainer.loss_sum.item()
    progress.scaler = trainer.optimizer.scaler.state_dict()
    progress.lengths = trainer.run.lengths()
    progress.place, data = trainer.windows.position()
    tensors = {}
    for name, weight in trainer.network.named_parameters():
        tensors[f"network.{name}"] = weight.detach()
        for key, value in trainer.optimizer.state[weight].items():
            tensors[f"optimizer.{name}.{key}"] = value
    for index, part in enumerate(trainer.state or ()):
        tensors[f"state.{index}"] = part
    tensors |= {f"data.{name}": tensor for name, tensor in data.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return Snapshot(copy.deepcopy(progress), tensors)


def restore(trainer: Trainer, snapshot: Snapshot) -> None:
    """Bring network, optimiser, carried state, place in the text and random states back to a
    snapshot, which is left as it is. Raises KeyError or RuntimeError if it is of another network."""
    tensors, device = snapshot.tensors, trainer.device
    with torch.no_grad():
        for name, weight in trainer.network.named_parameters():
            weight.copy_(tensors[f"network.{name}"])
            prefix, held = f"optimizer.{name}.", trainer.optimizer.state[weight]
            moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            for key in held.keys() - moments.keys():
                held[key].zero_()  # as before the first step
            for key, value in moments.items():
                if key in held:
                    held[key].copy_(value)
                else:
                    # AdamW keeps its step count on the CPU unless it is fused on a GPU.
                    on_cpu = key == "step" and device.type != "cuda"
                    held[key] = value.to("cpu" if on_cpu else weight.device, copy=True)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    trainer.progress = copy.deepcopy(snapshot.progress)
    trainer.optimizer.scaler.load_state_dict(trainer.progress.scaler)
    trainer.loss_sum.fill_(trainer.progress.loss_sum)
    data = {k.removeprefix("data."): v.clone() for k, v in tensors.items() if k.startswith("data.")}
    trainer.windows.restore(trainer.progress.place, data)
    parts = tuple(tensors[k].to(device, copy=True) for k in ("state.0", "state.1") if k in tensors)
    trainer.state = parts or None


def of_all_ranks(trainer: Trainer, snapshot: Snapshot) -> Snapshot:
    """What each rank has captured -> one snapshot, the same on all of them."""
    ranks, windows = trainer.ranks, trainer.windows
    if ranks.alone:
        return snapshot
    tensors = {}
    for name, tensor in snapshot.tensors.items():
        if name.startswith("state."):
            tensors[name] = ranks.joined(tensor, 1, windows.rows, windows.batch_size)
        elif name.startswith("random."):
            each = ranks.joined(tensor[None], 0, slice(ranks.rank, ranks.rank + 1), ranks.size)
            tensors |= {f"{name}.{rank}": state for rank, state in enumerate(each)}
        else:
            tensors[name] = tensor
    return Snapshot(snapshot.progress, tensors)


def of_this_rank(trainer: Trainer, snapshot: Snapshot) -> Snapshot:
    """A snapshot of all ranks -> what this one needs. Where their number has changed, what is random
    begins anew."""
    ranks, rows = trainer.ranks, trainer.windows.rows
    randoms = {name: t for name, t in snapshot.tensors.items() if name.startswith("random.")}
    tensors = {name: t for name, t in snapshot.tensors.items() if name not in randoms}
    tensors |= {name: t[:, rows] for name, t in tensors.items() if name.startswith("state.")}
    if ranks.size == max(1, sum(name.startswith("random.cpu.") for name in randoms)):
        own = "" if ranks.alone else f".{ranks.rank}"
        tensors |= {
            name: randoms[name + own] for name in ("random.cpu", "random.cuda") if name + own in randoms
        }
    else:
        seed = seed_of(trainer, snapshot.progress.step)
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        tensors |= {f"random.{d}": torch.Generator(d).manual_seed(seed).get_state() for d in devices}
    return Snapshot(snapshot.progress, tensors)


def seed_of(trainer: Trainer, step: int) -> int:
    """A seed for what shall be random in another way on each rank, from some step on."""
    source = np.random.SeedSequence([trainer.config.training.seed, step, trainer.ranks.rank])
    return int(source.generate_state(1, np.uint64)[0] >> np.uint64(1))


def save_checkpoint(folder: Path, now: Snapshot, good: Snapshot | None) -> None:
    """Put a checkpoint in the place of the one before it."""

    def fill(new: Path) -> None:
        _write(new, now, _NOW)
        if good and good.progress.step != now.progress.step:
            _write(new, good, _GOOD)

    replace_folder(folder, fill)


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Take a new trainer to where a run stopped. The first rank reads for all. Raises ModelError."""
    now = _read(trainer, folder, _NOW)
    try:
        restore(trainer, now)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} does not fit its run's config.yaml: {error}") from error
    if trainer.ranks.from_first((folder / _GOOD[1]).exists):
        trainer.good = _read(trainer, folder, _GOOD)


def read_progress(folder: Path, name: str = _NOW[1]) -> Progress:
    """The progress.json of a checkpoint. Raises ModelError."""
    values = read_json(folder / name, folder)
    try:
        return Progress(**{f.name: values[f.name] for f in fields(Progress)})
    except KeyError as error:
        raise ModelError(f"{folder / name} is damaged: it lacks {error}.") from error


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _read(trainer: Trainer, folder: Path, names: tuple[str, str]) -> Snapshot:
    ranks = trainer.ranks
    progress = Progress(**ranks.from_first(lambda: asdict(read_progress(folder, names[1]))))
    tensors = ranks.tensors_from_first(lambda: read_tensors(folder / names[0]))
    return of_this_rank(trainer, Snapshot(progress, tensors))


def _write(folder: Path, snapshot: Snapshot, names: tuple[str, str]) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in snapshot.tensors.items()}
    (folder / names[0]).write_bytes(save(tensors))
    (folder / names[1]).write_text(json.dumps(asdict(snapshot.progress), indent=2))
