"""Beam search: the most likely texts found by extending the best few partial texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lm.generation.constraints import Constraint, check_bias, no_token_allowed
from lm.generation.decoder import PREFILL_CHUNK, Decoder


@dataclass(frozen=True)
class Hypothesis:
    """One text of a beam search."""

    tokens: list[int]
    logprobs: list[float]  # nats, under the model
    score: float  # log-probability under bias and constraints; divided by length if finished
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
    """The `beams` best continuations of `prompt`, best first.

    A continuation is finished after `limit` tokens, after the token `end`, or where the `constraints` would
    end a sampled text. `suppressed` tokens are never chosen; `bias` is added to the logits of tokens.

    The score of a text is its log-probability divided by its length to the power of `length_penalty` (Wu et
    al. 2016, arXiv:1609.08144, without their constant): 0 prefers short texts, 1 compares nats per token.
    Raises UserError if the constraints exclude every text.
    """
    batch = decoder.batch()
    batch.add(_prefill(decoder, prompt[:-1]))
    alive = [Hypothesis([], [], 0.0, constraints)]
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        last = [(hypothesis.tokens or prompt)[-1] for hypothesis in alive]
        logits = batch.step(torch.tensor(last, device=decoder.device))
        logprobs = logits.log_softmax(dim=-1)
        check_bias(bias, logits.shape[1])
        logits[:, list(bias)] += torch.tensor(list(bias.values()), device=decoder.device)
        scores = logits.log_softmax(dim=-1)
        scores[:, list(suppressed)] = -torch.inf
        for hypothesis, row in zip(alive, scores, strict=True):
            row += hypothesis.score
            if (end_score := _apply_constraints(row, hypothesis.constraints)) > -float("inf"):
                finished.append(_normalize(dataclasses.replace(hypothesis, score=end_score), length_penalty))
        # Twice as many as beams: even if all of the best end here, enough continue.
        best = scores.flatten().topk(min(2 * beams, scores.numel()))
        extended: list[Hypothesis] = []
        rows: list[int] = []
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(index, scores.shape[1])
            if score == -float("inf") or len(extended) == beams:
                break
            longer = _extend(alive[row], token, logprobs[row, token].item(), score)
            if token == end or length == limit:
                finished.append(_normalize(longer, length_penalty))
            else:
                extended.append(longer)
                rows.append(row)
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:beams]
        if not extended or (
            len(finished) == beams and _is_settled(extended[0], finished, limit, length_penalty)
        ):
            break
        alive = extended
        batch.select(rows)
    if not finished:
        raise no_token_allowed(length - 1)
    return finished


def _prefill(decoder: Decoder, tokens: Sequence[int]) -> tuple[Tensor, ...]:
    """The state after reading `tokens`."""
    state = decoder.initial_state()
    for begin in range(0, len(tokens), PREFILL_CHUNK):
        state = decoder.prefill(torch.tensor(tokens[begin : begin + PREFILL_CHUNK]), state)
    return state


def _apply_constraints(scores: Tensor, constraints: Sequence[Constraint]) -> float:
    """Exclude the tokens that are not allowed from `scores` (vocab,), in place. Returns the score of ending
    the text here: the sum over the excluded tokens, if the text is complete."""
    end_score = -float("inf")
    for constraint in sorted(constraints, key=lambda constraint: constraint.complete):
        excluded = ~constraint.allowed().to(scores.device)
        if constraint.complete:
            end_score = scores[excluded].logsumexp(dim=0).item()
        scores.masked_fill_(excluded, -torch.inf)
    return end_score


def _extend(hypothesis: Hypothesis, token: int, logprob: float, score: float) -> Hypothesis:
    constraints = [constraint.fork() for constraint in hypothesis.constraints]
    for constraint in constraints:
        constraint.accept(token)
    return Hypothesis([*hypothesis.tokens, token], [*hypothesis.logprobs, logprob], score, constraints)


def _normalize(hypothesis: Hypothesis, length_penalty: float) -> Hypothesis:
    """A finished hypothesis, its score divided by its length."""
    length = max(len(hypothesis.tokens), 1)
    return Hypothesis(hypothesis.tokens, hypothesis.logprobs, hypothesis.score / length**length_penalty)


def _is_settled(best: Hypothesis, finished: Sequence[Hypothesis], limit: int, length_penalty: float) -> bool:
    """Whether no extension of `best` can score higher than the worst finished hypothesis."""
    return best.score / limit ** max(length_penalty, 0.0) <= finished[-1].score
