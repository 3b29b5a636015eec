"""Filling a gap: what could stand between two texts, by a model for each direction.

The one that reads forward writes on from the left, the one that reads backward writes what leads up to
the right; among what they wrote, the best is what both together find most likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lm.errors import UserError
from lm.language_model import LanguageModel

_CANDIDATES = 16  # written by each model
_AROUND = 200  # characters on each side that are scored with the gap


@dataclass(frozen=True)
class Gap:
    """One way to fill a gap."""

    text: str
    tokens: list[int]
    score: float  # nats per token, the mean of both directions


def infill(
    model: LanguageModel,
    other: LanguageModel,
    left: str,
    right: str,
    *,
    max_new_tokens: int = 80,
    seed: int = 0,
    candidates: int = _CANDIDATES,
    **settings: Any,
) -> list[Gap]:
    """Texts of at most `max_new_tokens` that fit between `left` and `right`, the best first.

    Each model writes `candidates` texts; what they wrote is cut where words end, so that shorter texts
    are tried too. The score is the mean, over both directions, of the log-probability of the gap and of
    what is read after it, for each token. Raises UserError unless one model reads forward and one
    backward, with the same vocabulary.
    """
    forward, backward = (other, model) if model.backward else (model, other)
    if forward.backward or not backward.backward:
        raise UserError("--infill needs one model that reads forward and one that reads backward.")
    if forward.tokenizer.backend.get_vocab() != backward.tokenizer.backend.get_vocab():
        raise UserError("--infill needs two models with the same vocabulary: train them on the same text.")
    settings |= {"max_new_tokens": max_new_tokens, "num_samples": candidates, "seed": seed}
    before, after = left[-_AROUND:], right[:_AROUND]
    written = {
        piece
        for sample in forward.generate(left, **settings)
        for piece in _cuts(sample.text)
    } | {
        piece
        for sample in backward.generate(right, **settings)
        for piece in _cuts(sample.text, from_the_end=True)
    }  # fmt: skip
    gaps = [
        Gap(text, forward.encode(text), _score(forward, backward, before, text, after))
        for text in sorted(written)
    ]
    return sorted(gaps, key=lambda gap: -gap.score)


def _cuts(text: str, from_the_end: bool = False) -> list[str]:
    """The whole text and shorter ones, cut at spaces near its quarters, with that space and without."""
    pieces = [text]
    for quarter in (1, 2, 3):
        near = len(text) * quarter // 4
        at = text.find(" ", near) if from_the_end else text.rfind(" ", 0, near)
        if at >= 0:
            pieces += [text[at:], text[at + 1 :]] if from_the_end else [text[: at + 1], text[:at]]
    return pieces


def _score(forward: LanguageModel, backward: LanguageModel, left: str, text: str, right: str) -> float:
    total, tokens = 0.0, 0
    for model, read_before in ((forward, left), (backward, right)):
        scores = model.score(left + text + right)
        known = len(model.encode(read_before))
        counted = scores[known:] if model is forward else scores[: len(scores) - known]
        total += sum(score.logprob for score in counted)
        tokens += len(counted)
    return total / max(tokens, 1)
