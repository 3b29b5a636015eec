"""The optimiser and how its learning rate goes over the budget."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from lm.config.schema import TrainingConfig
from lm.distributed import ALONE, Ranks
from lm.model.device import choose_precision
from lm.model.network import RecurrentLM
from lm.training.muon import Muon, QuickStart

_LOWEST = 0.02  # share of the highest rate that the schedules end at


class AdamW(QuickStart, torch.optim.AdamW):
    """torch's own (Loshchilov & Hutter 2019)."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Optimizer:
    """One or more of torch's optimisers, each for its own weights, stepped as one.

    In float16 small gradients would vanish: the loss is multiplied by a scale before the backward pass
    and the gradients are divided by it afterwards; a step whose gradients overflowed is left out and
    halves the scale (Micikevicius et al. 2018, arXiv:1710.03740). In other precisions the scale is one.
    """

    def __init__(self, *parts: torch.optim.Optimizer, scaler: torch.amp.GradScaler):
        self.parts, self.scaler = parts, scaler
        # What they remember of each weight (momentum, ...), in one place.
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        for part in parts:
            part.state = self.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def unscale(self) -> None:
        """Divide the gradients by the scale of the loss, so that they can be clipped."""
        for part in self.parts:
            self.scaler.unscale_(part)

    def step(self) -> None:
        """One update of all weights."""
        for part in self.parts:
            self.scaler.step(part)
        self.scaler.update()


def make_optimizer(network: RecurrentLM, config: TrainingConfig, ranks: Ranks = ALONE) -> Optimizer:
    """AdamW that decays matrices and leaves biases alone; for the
    recurrent layers' matrices Muon, unless the configuration wants AdamW for all."""
    weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices = []
    if config.optimizer == "muon":
        matrices = [w for name, w in weights.items() if name.startswith("recurrent.weight")]
    special = set(map(id, matrices))
    others = [w for w in weights.values() if id(w) not in special]
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0},
    ]
    device = others[0].device
    fused = device.type in ("cpu", "cuda")
    adamw = AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused)
    precision = choose_precision(config.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    if not matrices:
        return Optimizer(adamw, scaler=scaler)
    muon = Muon(matrices, config.lr, config.weight_decay, precision, ranks)
    return Optimizer(adamw, muon, scaler=scaler)


def learning_rate(done: float, config: TrainingConfig) -> float:
    """The rate after the share `done` (0 to 1) of the budget."""
    if done < config.warmup:
        return config.lr * max(done / config.warmup, 0.01)
    after = min((done - config.warmup) / (1 - config.warmup), 1.0)
    if config.schedule == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * after))
    elif config.schedule == "linear":
        height = 1 - after
    else:
        return config.lr
    return config.lr * (_LOWEST + (1 - _LOWEST) * height)
