"""Models that go on learning from the text they are scored on: dynamic evaluation and the neural
cache. Each token is predicted before it is learned from, so the scores stay honest."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm.config.schema import CacheConfig, DynamicConfig
from lm.model.cells import State
from lm.model.device import autocast
from lm.model.network import RecurrentLM

_WINDOW = 256  # tokens that a network which does not learn reads at a time
_SMALLEST = 1e-8  # what keeps the steps of a network without any gradient finite


def adaptive_losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    *,
    dynamic: DynamicConfig | None = None,
    cache: CacheConfig | None = None,
    precision: torch.dtype = torch.float32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """The loss (tokens,) in nats of each of `tokens` (tokens,), read in one go from the first, which
    is predicted after the token `start`, to the last; what was read changes what is predicted, by
    `dynamic` evaluation, by the `cache` or by both. `network` itself stays as it is."""
    backward, device = network.config.backward, next(network.parameters()).device
    ids = np.concatenate([[start], tokens[::-1] if backward else tokens]).astype(np.int64)
    ids = torch.from_numpy(ids).to(device)
    reader = copy.deepcopy(network).eval()
    learner = _Learner(reader, dynamic) if dynamic else None
    memory = _Memory(cache, reader.config.hidden_size, device) if cache else None
    size = dynamic.dynamic_segment if dynamic else _WINDOW
    state: State | None = None
    result = np.zeros(len(tokens))
    for begin in range(0, len(tokens), size):
        segment = ids[begin : begin + size + 1]
        # cuDNN's layers have a backward pass only while training, when there would be dropout too.
        with (
            torch.set_grad_enabled(dynamic is not None),
            torch.backends.cudnn.flags(enabled=False) if dynamic else nullcontext(),
            autocast(device, precision),
        ):
            hidden, state = reader.hidden_states(segment[None, :-1], state)
            logits = reader.decode(hidden[:, 0])
        losses = F.cross_entropy(logits.float(), segment[1:], reduction="none")
        scored = losses.detach()
        if memory:
            scored = memory.mixed(hidden[:, 0].detach().float(), segment[1:], scored)
        result[begin : begin + len(scored)] = scored.cpu().numpy()
        if learner:
            learner.learn(losses.mean())
        state = tuple(part.detach() for part in state)
        progress((begin + len(scored)) / len(tokens))
    return result[::-1].copy() if backward else result


class _Learner:
    """Dynamic evaluation (Krause et al. 2018, arXiv:1709.07432): after each segment a step of

        w += −rate · g / (r + mean(r)) + min(decay · r / mean(r), 1) · (trained w − w)

    with g the segment's gradient and r its root mean square, for each weight. The paper takes r
    from the training text; here it is the mean over the segments read so far, so that a model needs
    nothing but itself and the text. Where the paper adds a small constant to r, here it is the mean
    of all r: without it the vectors of words that are met for the first time would leap.
    """

    def __init__(self, network: RecurrentLM, config: DynamicConfig):
        self._config = config
        self._weights = list(network.parameters())
        self._trained = [weight.detach().clone() for weight in self._weights]
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self._count, self._segments = sum(map(torch.numel, self._weights)), 0

    def learn(self, loss: Tensor) -> None:
        """Change the weights after a segment with the mean `loss`."""
        gradients = torch.autograd.grad(loss, self._weights)
        with torch.no_grad():
            self._segments += 1
            torch._foreach_mul_(self._squares, 1 - 1 / self._segments)
            torch._foreach_addcmul_(self._squares, gradients, gradients, 1 / self._segments)
            sizes = torch._foreach_sqrt(self._squares)
            mean = sum(size.sum() for size in sizes) / self._count
            rates = torch._foreach_mul(sizes, (self._config.dynamic_decay / (mean + _SMALLEST)).item())
            torch._foreach_clamp_max_(rates, 1.0)
            torch._foreach_lerp_(self._weights, self._trained, rates)
            torch._foreach_add_(sizes, mean.item() + _SMALLEST)
            torch._foreach_addcdiv_(self._weights, gradients, sizes, -self._config.dynamic_rate)


class _Memory:
    """The continuous cache (Grave et al. 2017, arXiv:1612.04426): the last hidden states, each with
    the token that came after it. A token's probability is

        (1 − λ) · the network's + λ · the share of that token in the cache,

    where a place in the cache counts by exp(θ · its hidden state · the present one).
    """

    def __init__(self, config: CacheConfig, hidden_size: int, device: torch.device):
        self._config = config
        self._states = torch.zeros(0, hidden_size, device=device)
        self._tokens = torch.zeros(0, dtype=torch.long, device=device)

    def mixed(self, hidden: Tensor, tokens: Tensor, losses: Tensor) -> Tensor:
        """The losses (time,) of `tokens` (time,), which the network predicted from `hidden` (time,
        hidden) with `losses` (time,), together with the cache; all of them are then kept in it."""
        window, share = self._config.cache_window, self._config.cache_lambda
        before = len(self._tokens)
        states, known = torch.cat([self._states, hidden]), torch.cat([self._tokens, tokens])
        # How far back each place (before + time,) is from each step (time,).
        steps = torch.arange(before, before + len(tokens), device=tokens.device)[:, None]
        back = steps - torch.arange(before + len(tokens), device=tokens.device)[None, :]
        scores = self._config.cache_theta * hidden @ states.t()
        scores = scores.masked_fill((back < 1) | (back > window), -torch.inf)
        same = scores.masked_fill(known[None, :] != tokens[:, None], -torch.inf)
        remembered = same.logsumexp(dim=1) - scores.logsumexp(dim=1)
        both = torch.logaddexp(math.log1p(-share) - losses, math.log(share) + remembered)
        self._states, self._tokens = states[-window:], known[-window:]
        return torch.where(steps[:, 0] > 0, -both, losses)  # at the very beginning it is empty
