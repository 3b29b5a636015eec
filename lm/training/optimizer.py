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
from lm.training.muon import Muon, NoCompilerImport

_FINAL_SHARE = 0.02  # of the highest rate, at which the schedules end


class AdamW(NoCompilerImport, torch.optim.AdamW):
    """torch.optim.AdamW (Loshchilov & Hutter 2019), without importing torch's compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class LossScale:
    """Loss scaling for float16, whose range is too small for many gradients.

    The loss is multiplied by a scale before the backward pass and the gradients are divided by it afterward.
    A step whose gradients overflow is skipped and halves the scale; many steps without overflow double it
    (Micikevicius et al. 2018, arXiv:1710.03740). torch.amp.GradScaler does the same, but waits for the device
    at every step.
    """

    def __init__(self, device: torch.device):
        self.scale = torch.full((), 2.0**16, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)  # since the scale has changed
        self.overflow = torch.zeros((), device=device)  # 1 if a gradient of this step is not finite

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint stores."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide the gradients by the scale, and look for numbers that are not finite."""
        self.overflow.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.overflow, self.scale.reciprocal())

    def update(self) -> None:
        """Adapt the scale after a step."""
        torch._amp_update_scale_(self.scale, self.good_steps, self.overflow, 2.0, 0.5, 2000)


class Optimizer:
    """One or more torch optimizers, each for its own weights, stepped as one.

    If it is `capturable`, a step can be captured as a CUDA graph: the learning rate is a tensor.
    """

    def __init__(
        self,
        *parts: torch.optim.Optimizer,
        scale: LossScale | None = None,
        capturable: bool = False,
    ):
        self.parts, self.scale = parts, scale
        self.rate: float = self.param_groups[0]["lr"]
        weight = self.param_groups[0]["params"][0]
        self._rate = torch.full((), self.rate, device=weight.device) if capturable else None
        # The state of all weights (momentum, ...) in one dictionary.
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        for part in parts:
            part.state = self.state
            if scale:
                part.found_inf = scale.overflow  # type: ignore[attr-defined]
        self.set_rate(self.rate)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of all weights."""
        self.rate = rate
        if self._rate is not None:
            self._rate.fill_(rate)
        for group in self.param_groups:
            group["lr"] = rate if self._rate is None else self._rate

    def zero_grad(self) -> None:
        """Discard the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return loss * self.scale.scale if self.scale else loss

    def unscale(self) -> None:
        """Make the gradients those of the loss itself, so that they can be clipped."""
        if self.scale:
            weights = (weight for group in self.param_groups for weight in group["params"])
            self.scale.unscale([weight.grad for weight in weights if weight.grad is not None])

    def step(self) -> None:
        """Update all weights."""
        for part in self.parts:
            part.step()
        if self.scale:
            self.scale.update()


def make_optimizer(
    network: RecurrentLM,
    config: RecipeConfig,
    precision: Precision,
    ranks: Ranks = ALONE,
    capturable: bool | None = None,
) -> Optimizer:
    """Muon for the recurrent layers' matrices and AdamW for the rest, or AdamW for everything.

    Weight decay applies to matrices, not to biases. `precision` is that of the training step. By default, the
    optimizer is `capturable` on a CUDA GPU.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in network.named_parameters():
        with_muon = config.optimizer == "muon" and name.startswith("recurrent.weight")
        (matrices if with_muon else others).append(weight)
    groups = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0},
    ]
    device = others[0].device
    on_cuda = device.type == "cuda"
    capturable = on_cuda if capturable is None else capturable
    fused = device.type in ("cpu", "cuda")
    adamw = AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused, capturable=on_cuda)
    scale = LossScale(device) if precision is Precision.FP16 else None
    if not matrices:
        return Optimizer(adamw, scale=scale, capturable=capturable)
    muon = Muon(matrices, config.lr, config.weight_decay, precision.dtype, ranks, stacked=capturable)
    return Optimizer(adamw, muon, scale=scale, capturable=capturable)


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
