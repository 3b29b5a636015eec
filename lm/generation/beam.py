"""Beam search: the likeliest texts that can be found by keeping the best few beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lm.generation.decoder import WINDOW, Decoder


@dataclass(frozen=True)
class Hypothesis:
    """One text of a beam search."""

    tokens: list[int]
    logprobs: list[float]  # nats
    score: float  # by which the hypotheses are ordered, the best first


def beam_search(
    decoder: Decoder,
    prompt: Sequence[int],
    beams: int,
    limit: int,
    *,
    length_penalty: float = 1.0,
    end: int | None = None,
    never: Sequence[int] = (),
) -> list[Hypothesis]:
    """The `beams` best continuations of `prompt`, of at most `limit` tokens, or that end with `end`.

    The score of a text is its log-probability divided by its length to the power of `length_penalty`
    (Wu et al. 2016, arXiv:1609.08144, with their constant left out): 0 prefers short texts, 1 counts
    nats per token.
    """
    state = decoder.empty()
    for begin in range(0, len(prompt) - 1, WINDOW):
        state = decoder.read(torch.tensor(prompt[begin : min(begin + WINDOW, len(prompt) - 1)]), state)
    batch = decoder.batch()
    batch.add(state)
    alive = [Hypothesis([], [], 0.0)]  # scored by the sum of their log-probabilities, unlike the finished
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        last = [(one.tokens or prompt)[-1] for one in alive]
        logprobs = batch.step(torch.tensor(last, device=decoder.device)).log_softmax(dim=-1)
        if never:
            logprobs[:, list(never)] = -torch.inf
        sums = torch.tensor([[one.score] for one in alive], device=decoder.device) + logprobs
        # So many that, whichever of them end, enough go on.
        best = sums.flatten().topk(min(2 * beams, sums.numel()))
        going_on, rows = [], []
        for total, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(place, sums.shape[1])
            if total == -float("inf") or len(going_on) == beams:
                break
            longer = Hypothesis(
                [*alive[row].tokens, token], [*alive[row].logprobs, logprobs[row, token].item()], total
            )
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
        batch.take(rows)
    return finished


def _scored(one: Hypothesis, length_penalty: float) -> Hypothesis:
    return Hypothesis(one.tokens, one.logprobs, one.score / len(one.tokens) ** length_penalty)


def _settled(best: Hypothesis, finished: list[Hypothesis], limit: int, length_penalty: float) -> bool:
    """Whether no longer text can be better than the worst of those that have ended."""
    return best.score / limit ** max(length_penalty, 0.0) <= finished[-1].score
