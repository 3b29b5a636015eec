"""All that exact resuming needs, in one folder that is replaced as a whole.

state.safetensors   weights, the optimiser's moments, the carried recurrent state, random states
progress.json       step, clock, running sums, the place in the growing files
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from lm.cells import State
from lm.data.batches import Windows
from lm.data.streaming import StreamedWindows
from lm.errors import ModelError
from lm.files import replace_folder
from lm.hub import read_json, read_tensors
from lm.network import RecurrentLM
from lm.training.optimizer import Optimizer


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
    reserve: float = 0.0  # seconds that the last validation of all is expected to take
    finished: bool = False
    lengths: dict[str, int] = field(default_factory=dict)  # of the growing files
    place: dict[str, Any] = field(default_factory=dict)  # in a text that is streamed


def save_checkpoint(
    folder: Path,
    progress: Progress,
    network: RecurrentLM,
    optimizer: Optimizer,
    state: State | None,
    windows: Windows | StreamedWindows,
) -> None:
    """Put a checkpoint in the place of the one before it."""
    progress.place, data = windows.place()
    tensors = {f"network.{name}": weight for name, weight in network.named_parameters()}
    for name, weight in network.named_parameters():
        for key, value in optimizer.state[weight].items():
            tensors[f"optimizer.{name}.{key}"] = value
    for index, part in enumerate(state or ()):
        tensors[f"state.{index}"] = part
    tensors |= {f"data.{name}": tensor for name, tensor in data.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}

    def fill(new: Path) -> None:
        (new / "state.safetensors").write_bytes(save(tensors))
        (new / "progress.json").write_text(json.dumps(asdict(progress), indent=2))

    replace_folder(folder, fill)


def load_checkpoint(
    folder: Path,
    network: RecurrentLM,
    optimizer: Optimizer,
    windows: Windows | StreamedWindows,
) -> tuple[Progress, State | None]:
    """Bring network, optimiser, place in the text and random states back to a checkpoint.
    Raises ModelError."""
    progress = read_progress(folder)
    tensors = read_tensors(folder / "state.safetensors")
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight.copy_(tensors[f"network.{name}"])
                prefix = f"optimizer.{name}."
                moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                optimizer.state[weight] = {
                    # AdamW keeps its step count on the CPU unless it is fused on a GPU.
                    k: v.to(weight.device if k != "step" or device.type == "cuda" else "cpu")
                    for k, v in moments.items()
                }
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} does not fit its run's config.yaml: {error}") from error
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    windows.restore(progress.place, {k[5:]: v for k, v in tensors.items() if k.startswith("data.")})
    parts = tuple(tensors[k].to(device) for k in ("state.0", "state.1") if k in tensors)
    return progress, parts or None


def read_progress(folder: Path) -> Progress:
    """The progress.json of a checkpoint. Raises ModelError."""
    values = read_json(folder / "progress.json", folder)
    try:
        return Progress(**{f.name: values[f.name] for f in fields(Progress)})
    except KeyError as error:
        raise ModelError(f"{folder / 'progress.json'} is damaged: it lacks {error}.") from error
