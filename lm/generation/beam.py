"""Beam search: the most likely texts found by extending the best few partial texts."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from lm.generation.constraints import Constraint, check_bias, no_token_allowed
from lm.generation.decoder import PREFILL_CHUNK, Decoder
from lm.generation.stop_strings import StopStrings, merge_equal_texts


@dataclass(frozen=True)
class Hypothesis:
    """One text of a beam search."""

    tokens: list[int]
    logprobs: list[float]  # nats, under the model
    score: float  # log-probability under bias and constraints; divided by length in the result
    constraints: Sequence[Constraint] = ()
    text: bytes = b""  # in reading order; empty without `StopStrings`


class _Finished:
    """The finished texts. If several token sequences spell the same text, their probabilities are summed."""

    def __init__(self, length_penalty: float, stop_strings: StopStrings | None):
        self._length_penalty, self._stop_strings = length_penalty, stop_strings
        self._found: dict[str | tuple[int, ...], Hypothesis] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, hypothesis: Hypothesis, *, whole: bool) -> None:
        """Add a text with its log-probability. `whole`: as for `StopStrings.readable`."""
        stop = self._stop_strings
        key = stop.readable(hypothesis.text, whole=whole) if stop else tuple(hypothesis.tokens)
        if known := self._found.get(key):
            likelier = max(known, hypothesis, key=lambda one: one.score)
            total = float(np.logaddexp(known.score, hypothesis.score))
            hypothesis = dataclasses.replace(likelier, score=total)
        self._found[key] = hypothesis

    def best(self, count: int) -> list[Hypothesis]:
        """The `count` best, best first, each with its log-probability divided by its length."""
        ranked = sorted(self._found.values(), key=lambda one: -self._normalized(one))
        return [dataclasses.replace(one, score=self._normalized(one)) for one in ranked[:count]]

    def worst_of_best(self, count: int) -> float:
        """The score of the last of the `count` best; -inf if there are fewer."""
        scores = heapq.nlargest(count, map(self._normalized, self._found.values()))
        return scores[-1] if len(scores) == count else -float("inf")

    def _normalized(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score / max(len(hypothesis.tokens), 1) ** self._length_penalty


@torch.inference_mode()  # in which a GPU's logits can be changed
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
    stop_strings: StopStrings | None = None,
) -> list[Hypothesis]:
    """The `beams` best continuations of `prompt`, best first.

    A continuation is finished after `limit` tokens, after the token `end`, at one of the `stop_strings`, or
    where the `constraints` would end a sampled text. `suppressed` tokens are never chosen; `bias` is added to
    the logits of tokens. With `stop_strings`, the texts of the continuations, up to the stop string, differ.

    The score of a text is its log-probability divided by its length in tokens to the power of
    `length_penalty` (Wu et al. 2016, arXiv:1609.08144, without their constant): 0 prefers short texts, 1
    compares nats per token. With `stop_strings`, the probability of a text is the sum over all token
    sequences found that spell it; the hypothesis has the most likely one. Raises UserError if the constraints
    exclude every text.
    """
    batch = decoder.batch()
    batch.add(_prefill(decoder, prompt[:-1]))
    alive = [Hypothesis([], [], 0.0, constraints)]
    finished = _Finished(length_penalty, stop_strings)
    for length in range(1, limit + 1):
        last = [(hypothesis.tokens or prompt)[-1] for hypothesis in alive]
        logits = batch.step(torch.tensor(last, device=decoder.device))
        logprobs = logits.log_softmax(dim=-1)
        check_bias(bias, logits.shape[1])
        logits[:, list(bias)] += logits.new_tensor(list(bias.values()))
        if logits.max() == -torch.inf:  # and the scores would be NaN
            raise no_token_allowed(length - 1)
        scores = logits.log_softmax(dim=-1)
        scores[:, list(suppressed)] = -torch.inf
        ended: dict[tuple[int, int], bytes] = {}  # row and token -> the text, which ends there
        for number, (hypothesis, row) in enumerate(zip(alive, scores, strict=True)):
            row += hypothesis.score
            if (end_score := _apply_constraints(row, hypothesis.constraints)) > -float("inf"):
                finished.add(dataclasses.replace(hypothesis, score=end_score), whole=False)
            if stop_strings:
                texts = merge_equal_texts(row, hypothesis.text, stop_strings, first=length == 1)
                ended.update({(number, token): text for token, text in texts.items()})
        # Twice as many as beams: even if all of the best end here, enough continue.
        best = scores.flatten().topk(min(2 * beams, scores.numel()))
        extended: list[Hypothesis] = []
        rows: list[int] = []
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(index, scores.shape[1])
            if score == -float("inf") or len(extended) == beams:
                break
            longer = _extend(alive[row], token, logprobs[row, token].item(), score, stop_strings)
            if (row, token) in ended:
                finished.add(dataclasses.replace(longer, text=ended[row, token]), whole=True)
            elif token == end or length == limit:
                finished.add(longer, whole=token == end)
            else:
                extended.append(longer)
                rows.append(row)
        # Several of them may write the same text, whose probability is at most that of all together.
        total = float(np.logaddexp.reduce([hypothesis.score for hypothesis in extended]))
        if not extended or total / limit ** max(length_penalty, 0.0) <= finished.worst_of_best(beams):
            break  # nothing that they can become is better
        alive = extended
        batch.select(rows)
    if not len(finished):
        raise no_token_allowed(length - 1)
    return finished.best(beams)


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


def _extend(
    hypothesis: Hypothesis, token: int, logprob: float, score: float, stop_strings: StopStrings | None
) -> Hypothesis:
    constraints = [constraint.fork() for constraint in hypothesis.constraints]
    for constraint in constraints:
        constraint.accept(token)
    tokens, logprobs = [*hypothesis.tokens, token], [*hypothesis.logprobs, logprob]
    first = not hypothesis.tokens
    text = stop_strings.extend(hypothesis.text, token, first=first) if stop_strings else b""
    return Hypothesis(tokens, logprobs, score, constraints, text)
