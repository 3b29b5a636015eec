"""Losses of models that adapt to the text they are scored on: dynamic evaluation and the continuous cache.

Each token is predicted before the model learns from it, so the losses are honest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lm.config.schema import CacheConfig, DynamicConfig
from lm.model.cells import State
from lm.model.device import Precision, autocast
from lm.model.network import RecurrentLM

_WINDOW = 256  # tokens read at a time when the weights are fixed
_GROUP = 2**22  # numbers updated at a time
_EPSILON = 1e-8  # keeps the update finite if all gradients are zero


def dynamic_losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    *,
    dynamic: DynamicConfig | None = None,
    cache: CacheConfig | None = None,
    precision: Precision = Precision.FP32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """The loss (tokens,) of each of `tokens` (tokens,) in nats, adapting to the tokens before it.

    The tokens are read as one stream that begins after the token `start`. The model adapts by `dynamic`
    evaluation, a continuous `cache`, or both. `network` itself does not change.
    """
    device = network.device
    in_reading_order = np.concatenate([[start], network.direction.reorder(tokens)])
    ids = torch.from_numpy(in_reading_order.astype(np.int64)).to(device)
    trained, network = network, copy.deepcopy(network).eval()
    updater = _WeightUpdater(network, trained, dynamic) if dynamic else None
    continuous_cache = _ContinuousCache(cache, network.config.hidden_size, device) if cache else None
    size = dynamic.dynamic_segment if dynamic else _WINDOW
    state: State | None = None
    result = np.zeros(len(tokens))
    for begin in range(0, len(tokens), size):
        segment = ids[begin : begin + size + 1]
        with torch.set_grad_enabled(dynamic is not None), autocast(device, precision):
            hidden, state = network.hidden_states(segment[None, :-1], state)
            losses = network.token_losses(hidden[:, 0], segment[1:])
        scored = losses.detach()
        if continuous_cache:
            scored = continuous_cache.losses(hidden[:, 0].detach().float(), segment[1:], scored)
        result[begin : begin + len(scored)] = scored.cpu().numpy()
        if updater:
            updater.update(losses.mean())
        state = tuple(part.detach() for part in state)
        progress((begin + len(scored)) / len(tokens))
    return network.direction.reorder(result).copy()


class _WeightUpdater:
    """Dynamic evaluation (Krause et al. 2018, arXiv:1709.07432): after each segment, update each weight by

        w += -rate · g / (r + mean(r)) + min(decay · r / mean(r), 1) · (w_trained - w)

    Here g is the gradient of the segment's mean loss and r the root mean square of the gradients so far. This
    differs from the paper in two ways. The paper computes r on the training text, which a saved model does
    not include. And it adds a small constant to r where mean(r), over all weights, is added here: without
    it, the embeddings of words that occur for the first time would jump.
    """

    def __init__(self, network: RecurrentLM, trained: RecurrentLM, config: DynamicConfig):
        self._config = config
        self._weights: list[Tensor] = list(network.parameters())
        self._trained = [weight.detach() for weight in trained.parameters()]
        self._mean_squares = [torch.zeros_like(weight) for weight in self._weights]
        self._count, self._segments = sum(weight.numel() for weight in self._weights), 0

    def update(self, loss: Tensor) -> None:
        """Update the weights after a segment with this mean `loss`."""
        gradients = torch.autograd.grad(loss, self._weights)
        with torch.no_grad():
            self._segments += 1
            groups = _groups(self._weights, self._trained, self._mean_squares, gradients)
            total = torch.zeros_like(loss)
            sizes: tuple[Tensor, ...] = ()
            for _, _, squares, gradient in groups:
                torch._foreach_mul_(squares, 1 - 1 / self._segments)
                torch._foreach_addcmul_(squares, gradient, gradient, 1 / self._segments)
                sizes = torch._foreach_sqrt(squares)
                total = sum((size.sum() for size in sizes), start=total)
            mean = total / self._count + _EPSILON
            for weights, trained, squares, gradient in groups:
                if len(groups) > 1:
                    sizes = torch._foreach_sqrt(squares)
                decays = torch._foreach_mul(sizes, (self._config.dynamic_decay / mean).item())
                torch._foreach_clamp_max_(decays, 1.0)
                torch._foreach_lerp_(weights, trained, decays)
                torch._foreach_add_(sizes, mean.item())
                torch._foreach_addcdiv_(weights, gradient, sizes, -self._config.dynamic_rate)


def _groups(*lists: Sequence[Tensor]) -> list[list[list[Tensor]]]:
    """Lists of tensors of the same shapes -> parts of these lists with about `_GROUP` numbers each, so that
    the temporaries of an update of a large network need little memory. Large tensors are cut into rows."""
    if sum(tensor.numel() for tensor in lists[0]) <= _GROUP:
        return [[list(tensors) for tensors in lists]]
    groups: list[list[list[Tensor]]] = []
    size = _GROUP
    for tensors in zip(*lists, strict=True):
        rows = max(1, _GROUP * len(tensors[0]) // tensors[0].numel())
        for parts in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            if size + parts[0].numel() > _GROUP:
                groups.append([[] for _ in lists])
                size = 0
            size += parts[0].numel()
            for group, part in zip(groups[-1], parts, strict=True):
                group.append(part)
    return groups


class _ContinuousCache:
    """The continuous cache (Grave et al. 2017, arXiv:1612.04426), which mixes two distributions:

        p(token) = (1 - λ) · p_network(token) + λ · p_cache(token)

    The cache stores the last hidden states h_i and the token that followed each. p_cache(token) is the share
    of the entries with that token, weighted by exp(θ · h_i · h), where h is the current hidden state.
    """

    def __init__(self, config: CacheConfig, hidden_size: int, device: torch.device):
        self._config = config
        self._states = torch.zeros(0, hidden_size, device=device)
        self._tokens = torch.zeros(0, dtype=torch.long, device=device)

    def losses(self, hidden: Tensor, tokens: Tensor, network_losses: Tensor) -> Tensor:
        """The losses (time,) of `tokens` (time,) that the network predicted from the states `hidden` (time,
        hidden) with `network_losses` (time,). Then adds the states and tokens to the cache."""
        window, weight = self._config.cache_window, self._config.cache_lambda
        before = len(self._tokens)
        states, followers = torch.cat([self._states, hidden]), torch.cat([self._tokens, tokens])
        # How many steps before each of the time steps each of the (before + time) entries was added.
        steps = torch.arange(before, before + len(tokens), device=tokens.device)[:, None]
        ages = steps - torch.arange(before + len(tokens), device=tokens.device)[None, :]
        scores = self._config.cache_theta * hidden @ states.t()
        scores = scores.masked_fill((ages < 1) | (ages > window), -torch.inf)
        matching = scores.masked_fill(followers[None, :] != tokens[:, None], -torch.inf)
        cache_logprobs = matching.logsumexp(dim=1) - scores.logsumexp(dim=1)
        logprobs = torch.logaddexp(math.log1p(-weight) - network_losses, math.log(weight) + cache_logprobs)
        self._states, self._tokens = states[-window:], followers[-window:]
        return torch.where(steps[:, 0] > 0, -logprobs, network_losses)  # the first step has an empty cache
