"""The optimiser and how its learning rate goes over the budget."""

from __future__ import annotations

import math

import torch

from lm.config import TrainingConfig
from lm.network import RecurrentLM

_LOWEST = 0.02  # share of the highest rate that the schedules end at


def make_optimizer(network: RecurrentLM, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices and leaves biases alone."""
    weights = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.dim() == 1], "weight_decay": 0.0},
    ]
    fused = weights[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused)


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
