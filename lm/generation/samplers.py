"""Samplers: pure functions on logits (rows, vocab). They know nothing of models or text.

A filter returns logits of the same shape in which a token that may not be chosen has -inf. Its strength
is a number, or one for each row: (rows, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.config.schema import SamplingConfig

Strength = float | Tensor


def temperature(logits: Tensor, t: Strength) -> Tensor:
    """Divide by `t` > 0: probabilities become p^(1/t), renormalised.

    [0.8, 0.2] at t=0.5 -> [0.94, 0.06]; at t=2 -> [0.67, 0.33].
    """
    return logits / t


def top_k(logits: Tensor, k: int | Tensor) -> Tensor:
    """Keep the `k` likeliest tokens; of equally likely ones at the border all are kept.

    [0.5, 0.3, 0.2] with k=2 -> the last one is out.
    """
    return logits.masked_fill(logits < _border(logits, k), -torch.inf)


def _border(logits: Tensor, k: int | Tensor) -> Tensor:
    """The k-th largest of each row, (rows, 1)."""
    most = min(int(k.max()) if isinstance(k, Tensor) else k, logits.shape[-1])
    best = logits.topk(most, dim=-1).values
    if not isinstance(k, Tensor):
        return best[..., -1:]
    return best.gather(-1, k.clamp(max=most) - 1)


def top_p(logits: Tensor, p: Strength) -> Tensor:
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751): keep the smallest set of likeliest
    tokens whose probabilities reach `p`.

    [0.5, 0.3, 0.2] with p=0.7 -> 0.5 is not enough, 0.5 + 0.3 is: the last one is out.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    return logits.masked_fill(_past(ordered.softmax(dim=-1), p, order), -torch.inf)


def min_p(logits: Tensor, share: Strength) -> Tensor:
    """Keep the tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024,
    arXiv:2407.01082).

    [0.5, 0.3, 0.2] with share=0.5 -> below 0.25: the last one is out.
    """
    share = torch.as_tensor(share, dtype=logits.dtype, device=logits.device)
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + share.log(), -torch.inf)


def typical_p(logits: Tensor, p: Strength) -> Tensor:
    """Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): keep the smallest set that
    reaches `p` of the tokens whose surprisal is nearest to the entropy.

    [0.9, 0.05, 0.05]: the entropy is 0.39, the surprisals 0.11 and 3.0: the first comes first.
    """
    logprobs = logits.log_softmax(dim=-1)
    probabilities = logprobs.exp()
    entropy = -(probabilities * logprobs).nansum(dim=-1, keepdim=True)
    order = (logprobs + entropy).abs().argsort(dim=-1, stable=True)
    return logits.masked_fill(_past(probabilities.gather(-1, order), p, order), -torch.inf)


def _past(ordered: Tensor, p: Strength, order: Tensor) -> Tensor:
    """Which tokens come after those that already reach `p`, given their probabilities in an order."""
    p = torch.as_tensor(p, dtype=ordered.dtype, device=ordered.device)
    # Before the first there is nothing, so it stays; with p = 1 all do, whatever the sum is rounded to.
    out = (ordered.cumsum(dim=-1) - ordered >= p) & (p < 1)
    return torch.zeros_like(out).scatter(-1, order, out)


def repetition_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Make tokens that occur less likely (Keskar et al. 2019, arXiv:1909.05858): positive logits are
    divided by `penalty`, negative ones multiplied. counts (rows, vocab): how often a token occurs."""
    weaker = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(counts > 0, weaker, logits)


def presence_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Take `penalty` from the logits of tokens that occur."""
    return logits - penalty * (counts > 0)


def frequency_penalty(logits: Tensor, counts: Tensor, penalty: Strength) -> Tensor:
    """Take `penalty` from the logits of tokens for each time that they occur."""
    return logits - penalty * counts


@dataclass(frozen=True)
class SamplingTensors:
    """The settings of each row as tensors (rows, 1); None where no row wants the filter."""

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
    def stack(cls, rows: Sequence[SamplingConfig], vocab_size: int, device: torch.device) -> SamplingTensors:
        """One row for each of these settings."""

        def column(name: str, neutral: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
            values = [min(getattr(row, name), 2**31) for row in rows]
            if all(value == neutral for value in values):
                return None
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        greedy = [is_greedy(row) for row in rows]
        heights = [
            [1.0 if is_greedy(row) else clamp_temperature(initial_temperature(row.temperature))]
            for row in rows
        ]
        k = column("top_k", 0, torch.long)
        return cls(
            greedy=torch.tensor(greedy, device=device)[:, None] if any(greedy) else None,
            temperature=torch.tensor(heights, device=device),
            top_k=None if k is None else torch.where(k > 0, k, vocab_size),
            typical_p=column("typical_p", 1.0),
            top_p=column("top_p", 1.0),
            min_p=column("min_p", 0.0),
            repetition_penalty=column("repetition_penalty", 1.0),
            presence_penalty=column("presence_penalty", 0.0),
            frequency_penalty=column("frequency_penalty", 0.0),
        )

    @property
    def counting(self) -> bool:
        """Whether they ask how often each token occurs."""
        return any(
            penalty is not None
            for penalty in (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        )


def initial_temperature(temperature: float | tuple[float, float]) -> float:
    """The temperature of the first token."""
    return temperature[0] if isinstance(temperature, tuple) else temperature


def clamp_temperature(temperature: float) -> float:
    """A temperature by which logits can be divided; below it, the likeliest token is all there is."""
    return max(temperature, 1e-3)


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the likeliest token is always taken."""
    return sampling.greedy or sampling.temperature == 0


def apply_penalties(logits: Tensor, counts: Tensor, rules: SamplingTensors) -> Tensor:
    """The penalties, before anything else. counts (rows, vocab)."""
    for penalise, strength in (
        (repetition_penalty, rules.repetition_penalty),
        (presence_penalty, rules.presence_penalty),
        (frequency_penalty, rules.frequency_penalty),
    ):
        if strength is not None:
            logits = penalise(logits, counts, strength)
    return logits


def apply_filters(logits: Tensor, rules: SamplingTensors) -> Tensor:
    """Temperature first, then the filters."""
    logits = temperature(logits, rules.temperature)
    if rules.top_k is not None:
        logits = top_k(logits, rules.top_k)
    for keep, strength in ((typical_p, rules.typical_p), (top_p, rules.top_p), (min_p, rules.min_p)):
        if strength is not None:
            logits = keep(logits, strength)
    return logits


def choose(logits: Tensor, uniforms: Tensor, rules: SamplingTensors) -> Tensor:
    """logits (rows, vocab), uniforms (rows,) in [0, 1), as wide as they can be -> tokens (rows,).

    Each row is drawn by inverting its own cumulative distribution at its own uniform number, so that
    a row's choice depends on nothing but that row.
    """
    tokens, left = None, logits
    if rules.top_k is not None:
        # Where each row chooses among a few, the rest is not looked at again. In the order of the
        # vocabulary, so that the same number chooses the same token.
        border = _border(logits, rules.top_k)
        few = int((logits >= border).sum(dim=-1).max())
        tokens = logits.topk(few, dim=-1).indices.sort(dim=-1).values
        left = logits.gather(-1, tokens)
        left = left.masked_fill(left < border, -torch.inf)
        rules = dataclasses.replace(rules, top_k=None)
    left = apply_filters(left, rules).to(uniforms.dtype)
    weights = (left - left.amax(dim=-1, keepdim=True)).exp()
    cumulative = weights.cumsum(dim=-1)
    # A little below one, so that rounding never leads past the last token that has a probability.
    below = uniforms * (1 - torch.finfo(uniforms.dtype).eps)
    targets = below[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, targets, right=True)
    if tokens is not None:
        chosen = tokens.gather(-1, chosen)
    if rules.greedy is not None:
        chosen = torch.where(rules.greedy, logits.argmax(dim=-1, keepdim=True), chosen)
    return chosen[:, 0]
