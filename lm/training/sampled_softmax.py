"""Sampled softmax: in training, predictions are normalized over a sample of a large vocabulary.

With 10,000 token types, most of a step on a CPU would be spent on the logits of all types at every position.
The sum of their exponentials can be estimated from a few thousand: the most frequent types are always among
them; the others are drawn by frequency and weighted by the inverse of their probability (importance sampling;
Bengio & Senécal 2003; Jean et al. 2015, arXiv:1412.2007). The logit of the token to predict is always exact,
and validations use all types.
"""

from __future__ import annotations

import numpy as np
import torch

from lm.model.loss import TypeSample

_COUNTED = 1 << 24  # tokens from which the frequencies are estimated
_PIECES = 64  # in which they are read, spread over the text
_FLATTER = 0.75  # exponent of the frequencies: rare types are drawn a little more often than they occur


class TypeSampler:
    """Draws `size` of the `vocab_size` token types of a text `tokens` (tokens,), for one step each time. The
    more frequent half is the same at every step."""

    def __init__(self, tokens: np.ndarray, vocab_size: int, size: int, seed: int):
        counts = _counts(tokens, vocab_size)
        by_frequency = np.argsort(-counts, kind="stable")
        self._seed, self._drawn = seed, size - size // 2
        self._frequent, self._others = np.split(by_frequency, [size // 2])
        frequencies = (counts[self._others] + 1.0) ** _FLATTER
        probabilities = frequencies / frequencies.sum()
        self._cumulative = probabilities.cumsum()
        self._log_weights = -np.log(self._drawn * probabilities)

    def draw(self, step: int) -> TypeSample:
        """The sample for a step, which depends on nothing else: neither on the number of ranks nor on
        `--accumulate`."""
        numbers = np.random.default_rng([self._seed, step, 1]).random(self._drawn)
        drawn = self._cumulative.searchsorted(numbers * self._cumulative[-1], side="right")
        types = np.concatenate([self._frequent, self._others[drawn]])
        log_weights = np.concatenate([np.zeros(len(self._frequent)), self._log_weights[drawn]])
        return TypeSample(torch.from_numpy(types), torch.from_numpy(log_weights).float())


def _counts(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each type occurs in the text, or in pieces that are spread over a long one."""
    if len(tokens) > _COUNTED:
        length = _COUNTED // _PIECES
        begins = np.linspace(0, len(tokens) - length, _PIECES).astype(int)
        tokens = np.concatenate([tokens[begin : begin + length] for begin in begins])
    return np.bincount(tokens, minlength=vocab_size)
