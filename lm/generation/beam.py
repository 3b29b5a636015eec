"""Beam search: the likeliest texts that can be found by keeping the best few beginnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lm.errors import UserError
from lm.generation.constraints import Constraint, check_bias
from lm.generation.decoder import PREFILL_CHUNK, Decoder


@dataclass(frozen=True)
class Hypothesis:
    """One text of a beam search."""

    tokens: list[int]
    logprobs: list[float]  # nats, under the model
    score: float  # by which the hypotheses are ordered, the best first
    constraints: Sequence[Constraint] = ()


def beam_search(
    decoder: Decoder,
    prompt: Sequence[int],
    beams: int,
    limit: int,
    *,
    length_penalty: float = 1.0,
    end: int | None = None,
    suppressed: Sequence[int] = (),
    bias: Mapping[int, float] = MappingProxyType({}),
    constraints: Sequence[Constraint] = (),
) -> list[Hypothesis]:
    """The `beams` best continuations of `prompt`, of at most `limit` tokens, or that end with `end`, or
    where the `constraints` of a sampled text would end it. `bias` is added to the logits of tokens.

    The score of a text is its log-probability divided by its length to the power of `length_penalty`
    (Wu et al. 2016, arXiv:1609.08144, with their constant left out): 0 prefers short texts, 1 counts
    nats per token. Raises UserError if the constraints leave no text.
    """
    state = decoder.initial_state()
    for begin in range(0, len(prompt) - 1, PREFILL_CHUNK):
        state = decoder.prefill(
            torch.tensor(prompt[begin : min(begin + PREFILL_CHUNK, len(prompt) - 1)]), state
        )
    batch = decoder.batch()
    batch.add(state)
    # Those alive are scored by the sum of their log-probabilities, unlike the finished.
    alive = [Hypothesis([], [], 0.0, constraints)]
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        last = [(one.tokens or prompt)[-1] for one in alive]
        logits = batch.step(torch.tensor(last, device=decoder.device))
        logprobs = logits.log_softmax(dim=-1)
        check_bias(bias, logits.shape[1])
        logits[:, list(bias)] += torch.tensor(list(bias.values()), device=decoder.device)
        sums = logits.log_softmax(dim=-1)
        sums[:, list(suppressed)] = -torch.inf
        for one, row in zip(alive, sums, strict=True):
            row += one.score
            if (ends := _constrained(row, one.constraints)) > -float("inf"):
                finished.append(_scored(dataclasses.replace(one, score=ends), length_penalty))
        # So many that, whichever of them end, enough go on.
        best = sums.flatten().topk(min(2 * beams, sums.numel()))
        going_on, rows = [], []
        for total, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(place, sums.shape[1])
            if total == -float("inf") or len(going_on) == beams:
                break
            longer = _longer(alive[row], token, logprobs[row, token].item(), total)
            if token == end or length == limit:
                finished.append(_scored(longer, length_penalty))
            else:
                going_on.append(longer)
                rows.append(row)
        finished = sorted(finished, key=lambda one: -one.score)[:beams]
        if not going_on or (
            len(finished) == beams and _settled(going_on[0], finished, limit, length_penalty)
        ):
            break
        alive = going_on
        batch.select(rows)
    if not finished:
        raise UserError(
            f"after {length - 1} tokens there is none left to choose: what is asked for leaves nothing."
        )
    return finished


def _constrained(sums: Tensor, constraints: Sequence[Constraint]) -> float:
    """Leave of `sums` (vocab,), log-probabilities, those of the tokens that may come next; the
    log-probability that the text ends here, because it is whole and what would come does not belong to it."""
    ends = -float("inf")
    for constraint in sorted(constraints, key=lambda one: one.complete):
        out = ~constraint.allowed().to(sums.device)
        if constraint.complete:
            ends = sums[out].logsumexp(dim=0).item()
        sums.masked_fill_(out, -torch.inf)
    return ends


def _longer(one: Hypothesis, token: int, logprob: float, score: float) -> Hypothesis:
    constraints = [constraint.fork() for constraint in one.constraints]
    for constraint in constraints:
        constraint.accept(token)
    return Hypothesis([*one.tokens, token], [*one.logprobs, logprob], score, constraints)


def _scored(one: Hypothesis, length_penalty: float) -> Hypothesis:
    return Hypothesis(one.tokens, one.logprobs, one.score / max(len(one.tokens), 1) ** length_penalty)


def _settled(best: Hypothesis, finished: list[Hypothesis], limit: int, length_penalty: float) -> bool:
    """Whether no longer text can be better than the worst of those that have ended."""
    return best.score / limit ** max(length_penalty, 0.0) <= finished[-1].score
