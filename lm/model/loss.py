"""Cross-entropy of a linear decoder without storing the logits, and the most likely tokens.

With a vocabulary of 10,000 tokens, the logits of a window, their probabilities and their gradients would take
hundreds of megabytes that are written once and read once. Here each block of rows is computed while it is in
the cache. In training that is forward and backward, and only the gradients of hidden states and weights are
stored. So the memory for logits depends neither on the vocabulary nor on the length of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lm.model.cpu_kernels import product_dtype

BLOCK = 2**21  # logits at a time
_GPU_BLOCK = 2**24  # on a GPU, where a few large operations are faster than many small ones


def rows_per_block(vocab_size: int, device: torch.device) -> int:
    """The number of rows whose logits are computed at a time."""
    block = BLOCK if device.type == "cpu" else _GPU_BLOCK
    return max(1, block // vocab_size)


def cross_entropies(
    decode: Callable[[Tensor], Tensor], vocab_size: int, hidden: Tensor, targets: Tensor
) -> Tensor:
    """The cross-entropy (rows,) float32 of each of `targets` (rows,) int64 in nats, where `decode` maps
    hidden (rows, units) to logits (rows, vocab).

    The result is differentiable. If there are several blocks, the backward pass recomputes their logits.
    """

    def loss(block: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(decode(block).float(), target, reduction="none")

    rows = rows_per_block(vocab_size, hidden.device)
    blocks = list(zip(hidden.split(rows), targets.split(rows), strict=True))
    if len(blocks) == 1:
        return loss(*blocks[0])
    if torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(loss, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
        )
    # Into one tensor: with small results allocated between them, the heap cannot reuse the freed blocks.
    # Scoring 20,000 tokens of 92,280 types then took 1.9 GB more (glibc, 2026-11-28).
    losses = torch.empty(len(targets), device=hidden.device)
    for part, block in zip(losses.split(rows), blocks, strict=True):
        part.copy_(loss(*block))
    return losses


def decoder_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy (nats) of the logits `hidden @ weight.T + bias`.

    hidden (rows, units), weight (vocab, units), bias (vocab,), targets (rows,) int64 -> scalar float32.
    Under autocast, the products are computed in its precision, everything else in float32.
    """
    dtype = product_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return _DecoderLoss.apply(hidden.to(dtype), weight.to(dtype), bias.to(dtype), targets)


class TypeSample(NamedTuple):
    """Token types from which a sum over the whole vocabulary is estimated; a type can occur several times."""

    types: Tensor  # (sampled,) int64
    log_weights: Tensor  # (sampled,): the logarithm of the weight of each in that sum


def sampled_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, sample: TypeSample) -> Tensor:
    """`decoder_loss`, with the sum over the vocabulary estimated from a sample.

    The target's own logit is exact, so it is left out of the sample.
    """
    needed = torch.cat([sample.types, targets])  # looked up together, for a single gradient of the weights
    parts = [len(sample.types), len(targets)]
    sampled, own = F.embedding(needed, weight).split(parts)
    sampled_bias, own_bias = F.embedding(needed, bias[:, None]).squeeze(1).split(parts)
    right = (hidden.float() * own).sum(dim=1) + own_bias
    logits = F.linear(hidden, sampled, sampled_bias + sample.log_weights).float()
    logits = logits.masked_fill(sample.types == targets[:, None], -torch.inf)
    return (torch.logaddexp(right, logits.logsumexp(dim=1)) - right).mean()


class _DecoderLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        rows = rows_per_block(len(weight), hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=wide)
        d_bias = torch.zeros_like(bias, dtype=wide)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for h, target, d_h in zip(hidden.split(rows), targets.split(rows), d_hidden.split(rows), strict=True):
            logprobs = F.linear(h, weight, bias).to(wide).log_softmax(dim=1)
            chosen = target[:, None]
            total -= logprobs.gather(1, chosen).sum()
            # The gradient with respect to the logits: the probabilities, minus one at the target.
            d_logits = logprobs.exp_().scatter_add_(1, chosen, logprobs.new_full(chosen.shape, -1.0))
            d_bias += d_logits.sum(dim=0)
            d_logits = d_logits.to(h.dtype)
            torch.mm(d_logits, weight, out=d_h)
            d_weight += d_logits.t() @ h
        ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        ctx.rows = len(hidden)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_loss = d_loss / ctx.rows
        return *(grad * d_loss.to(grad.dtype) for grad in ctx.saved_tensors), None


def top_logprobs(logprobs: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """logprobs (rows, vocab) -> for each row the `count` most likely tokens, in descending order, each with
    its log-probability."""
    best = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    return [
        list(zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
