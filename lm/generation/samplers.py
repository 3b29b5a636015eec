"""Samplers: pure functions on logits (rows, vocab) that know nothing about models or text.

A filter returns logits of the same shape with -inf for the tokens that it removes. Its strength is a number
or one number per row, (rows, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.config.schema import PENALTIES, SamplingConfig

Strength = float | Tensor

# Of the settings in SamplingTensors; the others are float32.
SETTING_DTYPES = {"greedy": torch.bool, "top_k": torch.int64}


def temperature(logits: Tensor, t: Strength) -> Tensor:
    """Divide the logits by `t` > 0: probabilities become p^(1/t), renormalized.

    [0.8, 0.2] with t=0.5 -> [0.94, 0.06]; with t=2 -> [0.67, 0.33].
    """
    return logits / t


def top_k(logits: Tensor, k: int | Tensor) -> Tensor:
    """Keep the `k` most likely tokens and all that are as likely as the last of them.

    [0.5, 0.3, 0.2] with k=2 -> the last is removed.
    """
    return logits.masked_fill(logits < _kth_largest(logits, k), -torch.inf)


def _kth_largest(logits: Tensor, k: int | Tensor) -> Tensor:
    """The k-th largest logit of each row, (rows, 1)."""
    largest_k = min(int(k.max()) if isinstance(k, Tensor) else k, logits.shape[-1])
    best = logits.topk(largest_k, dim=-1).values
    if not isinstance(k, Tensor):
        return best[..., -1:]
    return best.gather(-1, k.clamp(max=largest_k) - 1)


def top_p(logits: Tensor, p: Strength) -> Tensor:
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751): keep the smallest set of most likely tokens
    whose probabilities sum to at least `p`.

    [0.5, 0.3, 0.2] with p=0.7 -> 0.5 is not enough, 0.5 + 0.3 is: the last is removed.
    """
    sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
    return logits.masked_fill(_beyond(sorted_logits.softmax(dim=-1), p, order), -torch.inf)


def min_p(logits: Tensor, share: Strength) -> Tensor:
    """Keep the tokens at least `share` times as likely as the most likely one (Nguyen et al. 2024,
    arXiv:2407.01082).

    [0.5, 0.3, 0.2] with share=0.5 -> the last is below 0.25 and removed.
    """
    share = torch.as_tensor(share, dtype=logits.dtype, device=logits.device)
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + share.log(), -torch.inf)


def typical_p(logits: Tensor, p: Strength) -> Tensor:
    """Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): keep the smallest set of tokens whose
    surprisal is closest to the entropy and whose probabilities sum to at least `p`.

    [0.9, 0.05, 0.05]: the entropy is 0.39, the surprisals are 0.11 and 3.0: the first is most typical.
    """
    logprobs = logits.log_softmax(dim=-1)
    probabilities = logprobs.exp()
    entropy = -(probabilities * logprobs).nansum(dim=-1, keepdim=True)
    order = (logprobs + entropy).abs().argsort(dim=-1, stable=True)
    return logits.masked_fill(_beyond(probabilities.gather(-1, order), p, order), -torch.inf)


def _beyond(probabilities: Tensor, p: Strength, order: Tensor) -> Tensor:
    """Mask (rows, vocab) of the tokens after those that already reach `p`, given probabilities in `order`."""
    p = torch.as_tensor(p, dtype=probabilities.dtype, device=probabilities.device)
    # The first token always stays, since nothing precedes it; with p = 1 all do, however the sum is rounded.
    mask = (probabilities.cumsum(dim=-1) - probabilities >= p) & (p < 1)
    return mask.scatter(-1, order, mask)


def repetition_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Make tokens that occur less likely (Keskar et al. 2019, arXiv:1909.05858): positive logits are divided
    by `penalty`, negative ones multiplied. counts (rows, vocab): how often each token occurs."""
    penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(counts > 0, penalized, logits)


def presence_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Subtract `penalty` from the logits of tokens that occur."""
    return logits - penalty * (counts > 0)


def frequency_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Subtract `penalty` from the logits of tokens, once for each occurrence."""
    return logits - penalty * counts


@dataclass(frozen=True)
class SamplingTensors:
    """The sampling settings of a batch as tensors (rows, 1); None if no row uses the setting."""

    greedy: Tensor | None
    temperature: Tensor
    top_k: Tensor | None
    typical_p: Tensor | None
    top_p: Tensor | None
    min_p: Tensor | None
    repetition_penalty: Tensor | None
    presence_penalty: Tensor | None
    frequency_penalty: Tensor | None

    @classmethod
    def stack(
        cls, configs: Sequence[SamplingConfig], vocab_size: int, device: torch.device
    ) -> SamplingTensors:
        """One row for each of `configs`."""

        def column(name: str, neutral: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
            values = [min(getattr(config, name), 2**31) for config in configs]
            if all(value == neutral for value in values):
                return None
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        greedy = [is_greedy(config) for config in configs]
        temperatures = [
            1.0 if is_greedy(config) else clamp_temperature(initial_temperature(config)) for config in configs
        ]
        k = column("top_k", 0, torch.long)
        return cls(
            greedy=torch.tensor(greedy, device=device)[:, None] if any(greedy) else None,
            temperature=torch.tensor(temperatures, device=device)[:, None],
            top_k=None if k is None else torch.where(k > 0, k, vocab_size).clamp(max=vocab_size),
            typical_p=column("typical_p", 1.0),
            top_p=column("top_p", 1.0),
            min_p=column("min_p", 0.0),
            repetition_penalty=column("repetition_penalty", 1.0),
            presence_penalty=column("presence_penalty", 0.0),
            frequency_penalty=column("frequency_penalty", 0.0),
        )

    @property
    def penalized(self) -> bool:
        """Whether any row has a penalty, which needs token counts."""
        return any(getattr(self, name) is not None for name in PENALTIES)


def initial_temperature(config: SamplingConfig) -> float:
    """The temperature of the first token."""
    t = config.temperature
    return t[0] if isinstance(t, tuple) else t


def clamp_temperature(t: float) -> float:
    """A temperature by which logits can be divided. The smallest separates neighboring float32 numbers, and
    dividing the largest bias by it does not overflow."""
    return max(t, 1e-8)


def is_greedy(config: SamplingConfig) -> bool:
    """Whether the most likely token is always chosen."""
    return config.greedy or config.temperature == 0


def apply_penalties(logits: Tensor, counts: Tensor, sampling: SamplingTensors) -> Tensor:
    """Apply the penalties, which precede everything else. counts (rows, vocab): how often each token
    occurs."""
    for penalize, strength in (
        (repetition_penalty, sampling.repetition_penalty),
        (presence_penalty, sampling.presence_penalty),
        (frequency_penalty, sampling.frequency_penalty),
    ):
        if strength is not None:
            logits = penalize(logits, counts, strength)
    return logits


def apply_filters(logits: Tensor, sampling: SamplingTensors) -> Tensor:
    """Apply the temperature, then top-k, typical-p, top-p and min-p."""
    logits = temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    for apply, strength in (
        (typical_p, sampling.typical_p),
        (top_p, sampling.top_p),
        (min_p, sampling.min_p),
    ):
        if strength is not None:
            logits = apply(logits, strength)
    return logits


def sample(logits: Tensor, uniforms: Tensor, sampling: SamplingTensors) -> Tensor:
    """logits (rows, vocab), uniforms (rows,) in [0, 1) of the widest float type -> tokens (rows,).

    Each row is sampled by inverting its cumulative distribution at its own uniform number, so that the
    token of a row depends on nothing but that row.
    """
    candidates, filtered = None, logits
    if sampling.top_k is not None:
        # Gather the top k of each row first, so that the other filters process only these; in vocabulary
        # order, so that the same uniform number selects the same token.
        threshold = _kth_largest(logits, sampling.top_k)
        count = int((logits >= threshold).sum(dim=-1).max())
        candidates = logits.topk(count, dim=-1).indices.sort(dim=-1).values
        filtered = logits.gather(-1, candidates)
        filtered = filtered.masked_fill(filtered < threshold, -torch.inf)
        sampling = dataclasses.replace(sampling, top_k=None)
    filtered = apply_filters(filtered, sampling).to(uniforms.dtype)
    weights = (filtered - filtered.amax(dim=-1, keepdim=True)).exp()
    cumulative = weights.cumsum(dim=-1)
    # Slightly less than 1, so that rounding never selects a token after the last one with a probability.
    below_one = uniforms * (1 - torch.finfo(uniforms.dtype).eps)
    targets = below_one[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True)
    if candidates is not None:
        tokens = candidates.gather(-1, tokens)
    if sampling.greedy is not None:
        tokens = torch.where(sampling.greedy, logits.argmax(dim=-1, keepdim=True), tokens)
    return tokens[:, 0]


def draw_without_waiting(logits: Tensor, uniforms: Tensor, sampling: SamplingTensors) -> Tensor:
    """What `sample` draws, by operations for a GPU: they are few, their shapes are fixed, and none waits for
    a result. The temperature has already been applied.

    logits (rows, vocab), uniforms (rows,) in [0, 1 - 1e-11], because probabilities sum to 1 only up to
    rounding -> tokens (rows,).
    """
    filtered = logits
    if sampling.top_k is not None or sampling.top_p is not None:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        filtered = logits.masked_fill(logits < ranked.gather(-1, sampling.top_k - 1), -torch.inf)
    if sampling.typical_p is not None:
        filtered = typical_p(filtered, sampling.typical_p)
    if sampling.top_p is not None:
        probabilities = filtered.softmax(dim=-1).gather(-1, order)
        filtered = filtered.masked_fill(_beyond(probabilities, sampling.top_p, order), -torch.inf)
    if sampling.min_p is not None:
        filtered = min_p(filtered, sampling.min_p)
    cumulative = filtered.to(uniforms.dtype).softmax(dim=-1).cumsum(dim=-1)
    # Unlike a search, this gives the number of a token that exists even if the logits are not numbers.
    tokens = (cumulative[:, :-1] <= uniforms[:, None]).sum(dim=-1)
    if sampling.greedy is not None:
        tokens = torch.where(sampling.greedy[:, 0], logits.argmax(dim=-1), tokens)
    return tokens
