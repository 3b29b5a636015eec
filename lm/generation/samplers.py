"""Samplers: pure functions on logits (batch, vocab). They know nothing of models or text.

A filter returns logits of the same shape in which a token that may not be chosen has -inf.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lm.config import SamplingConfig


def temperature(logits: Tensor, t: float) -> Tensor:
    """Divide by `t` > 0: probabilities become p^(1/t), renormalised.

    [0.8, 0.2] at t=0.5 -> [0.94, 0.06]; at t=2 -> [0.67, 0.33].
    """
    return logits / t


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` likeliest tokens; of equally likely ones at the border all are kept.

    [0.5, 0.3, 0.2] with k=2 -> the last one is out.
    """
    border = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < border, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Nucleus sampling (Holtzman et al. 2020): keep the smallest set of likeliest tokens whose
    probabilities reach `p`.

    [0.5, 0.3, 0.2] with p=0.7 -> 0.5 is not enough, 0.5 + 0.3 is: the last one is out.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    # The first token always stays, however small p is.
    out = before >= p
    out[..., 0] = False
    return logits.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -torch.inf)


def filtered(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Temperature first, then the filters, as `sampling` says."""
    logits = temperature(logits, sampling.temperature)
    if sampling.top_k:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p)
    return logits


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the likeliest token is always taken."""
    return sampling.greedy or sampling.temperature == 0


def choose(logits: Tensor, uniforms: Tensor, sampling: SamplingConfig) -> Tensor:
    """logits (batch, vocab), uniforms (batch,) in [0, 1) -> chosen tokens (batch,).

    Each row is drawn by inverting its own cumulative distribution at its own uniform number, so
    that a row's choice depends on nothing but that row.
    """
    if is_greedy(sampling):
        return logits.argmax(dim=-1)
    probabilities = filtered(logits, sampling).to(uniforms.dtype).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    # Rounding may leave the total a hair off 1.
    targets = (uniforms * cumulative[:, -1])[:, None]
    tokens = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    last = logits.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(dim=-1)
    return torch.minimum(tokens, last)
