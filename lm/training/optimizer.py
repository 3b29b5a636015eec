"""The optimizer, and the learning-rate schedule over the budget."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from lm.config.resolved import RecipeConfig
from lm.distributed import ALONE, Ranks
from lm.model.device import Precision
from lm.model.network import RecurrentLM
from lm.training.muon import Muon, QuickStart

_FINAL_SHARE = 0.02  # of the highest rate, at which the schedules end


class AdamW(QuickStart, torch.optim.AdamW):
    """torch.optim.AdamW (Loshchilov & Hutter 2019), without importing torch's compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Optimizer:
    """One or more torch optimizers, each for its own weights, stepped as one.

    In float16, small gradients would vanish. So the loss is multiplied by a scale before the backward pass
    and the gradients are divided by it afterwards; a step whose gradients overflow is skipped and halves the
    scale (Micikevicius et al. 2018, arXiv:1710.03740). In other precisions the scale is one.
    """

    def __init__(self, *parts: torch.optim.Optimizer, scaler: torch.amp.GradScaler):
        self.parts, self.scaler = parts, scaler
        # The state of all weights (momentum, ...) in one dictionary.
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        for part in parts:
            part.state = self.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def rate(self) -> float:
        """The current learning rate."""
        return self.param_groups[0]["lr"]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of all weights."""
        for group in self.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        """Discard the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def unscale(self) -> None:
        """Divide the gradients by the loss scale, so that they can be clipped."""
        for part in self.parts:
            self.scaler.unscale_(part)

    def step(self) -> None:
        """Update all weights."""
        for part in self.parts:
            self.scaler.step(part)
        self.scaler.update()


def make_optimizer(
    network: RecurrentLM, config: RecipeConfig, precision: Precision, ranks: Ranks = ALONE
) -> Optimizer:
    """Muon for the recurrent layers' matrices and AdamW for the rest, or AdamW for everything.

    Weight decay applies to matrices, not to biases. `precision` is that of the training step.
    """
    weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices: list[Tensor] = []
    if config.optimizer == "muon":
        matrices = [w for name, w in weights.items() if name.startswith("recurrent.weight")]
    with_muon = set(map(id, matrices))
    others = [w for w in weights.values() if id(w) not in with_muon]
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0},
    ]
    device = others[0].device
    fused = device.type in ("cpu", "cuda")
    adamw = AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
    if not matrices:
        return Optimizer(adamw, scaler=scaler)
    muon = Muon(matrices, config.lr, config.weight_decay, precision.dtype, ranks)
    return Optimizer(adamw, muon, scaler=scaler)


def learning_rate(done: float, config: RecipeConfig) -> float:
    """The learning rate after the share `done` (0 to 1) of the budget."""
    if done < config.warmup:
        return config.lr * max(done / config.warmup, 0.01)
    after = min((done - config.warmup) / (1 - config.warmup), 1.0)
    if config.schedule == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * after))
    elif config.schedule == "linear":
        height = 1 - after
    else:
        return config.lr
    return config.lr * (_FINAL_SHARE + (1 - _FINAL_SHARE) * height)
