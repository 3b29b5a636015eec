"""How a model rates each token of a text, and Scores, which a notebook displays as colored text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm.console.escaping import printable
from lm.evaluation.validation import WINDOW
from lm.model.cells import State
from lm.model.device import Precision
from lm.model.inference import Read, decoding, inference
from lm.model.loss import rows_per_block, top_logprobs
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer

_MAX_SHOWN = 5000  # tokens
_COLOR = "234, 88, 12"
_STYLE = "white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace; line-height: 1.6"


@dataclass(frozen=True)
class Score:
    """How a model rates one token of a text: log-probability and entropy in nats, and rank from 1."""

    text: str
    token: int
    logprob: float  # nats
    rank: int  # 1: the most likely token
    entropy: float  # of the predicted distribution, in nats
    alternatives: tuple[tuple[str, float], ...] = ()  # the most likely tokens with their logprobs


@torch.inference_mode()
def score_tokens(
    network: RecurrentLM, tokens: np.ndarray, start: int, alternatives: int = 0
) -> Iterator[tuple[float, int, float, list[tuple[int, float]]]]:
    """Yield log-probability (nats), rank, entropy (nats) and the most likely `alternatives` for each of
    `tokens` (tokens,), in reading order. The text begins after the token `start`."""
    tokens = network.direction.reorder(tokens)
    device = network.device
    ids = torch.from_numpy(np.concatenate([[start], tokens]).astype(np.int64)).to(device)
    state: State | None = None
    decode, rows = decoding(network, Precision.FP32), rows_per_block(network.vocab_size, device)
    with inference(network, Precision.FP32) as read:
        for begin in range(0, len(tokens), WINDOW):
            window = ids[begin : begin + WINDOW + 1]
            hidden, state = _read_one(read, window[:-1], state)
            for block, targets in zip(hidden.split(rows), window[1:].split(rows), strict=True):
                logprobs = F.log_softmax(decode(block).float(), dim=-1)
                chosen = logprobs.gather(1, targets[:, None])
                ranks = (logprobs > chosen).sum(dim=1) + 1
                entropies = _entropy(logprobs)
                others = top_logprobs(logprobs, alternatives)
                yield from zip(chosen[:, 0].tolist(), ranks.tolist(), entropies.tolist(), others, strict=True)


def _read_one(read: Read, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
    """tokens (time,), the state before them -> hidden states (time, hidden), the state after them."""
    blocks: list[Tensor] = []
    state = read(tokens[:, None], state, lambda steps, row, hidden: blocks.append(hidden[:, 0]))
    return torch.cat(blocks), state


def _entropy(logprobs: Tensor) -> Tensor:
    """logprobs (..., vocab) -> entropy (...,) in nats."""
    return -(logprobs.exp() * logprobs).nan_to_num(0.0).sum(dim=-1)


class Scores(list[Score]):
    """A list of Score. Displayed in a notebook, it is the text: the more surprising a token, the warmer its
    color. The tooltip of a token shows its surprisal in bits and its rank."""

    def __init__(self, scores: Iterable[Score], tokenizer: Tokenizer):
        super().__init__(scores)
        self._tokenizer = tokenizer

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Score: ...
    @overload
    def __getitem__(self, index: slice, /) -> Scores: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> Score | Scores:
        """One score, or the scores of a part of the text."""
        if isinstance(index, slice):
            return Scores(super().__getitem__(index), self._tokenizer)
        return super().__getitem__(index)

    def _repr_html_(self) -> str:
        shown, spans, tokens = self[:_MAX_SHOWN], [], []
        written = self._tokenizer.decode_stream()
        for score in shown:
            tokens.append(score)
            special = score.token in (self._tokenizer.eos, self._tokenizer.unk)
            text = written.step(score.token)
            if text or special:  # otherwise the token is the beginning of a character
                spans.append(_span(text or score.text, tokens))
                tokens = []
        if tokens:
            spans.append(_span(written.rest(), tokens))
        left = len(self) - len(shown)
        more = f" … and {left:,} more tokens" if left else ""
        return f'<div style="{_STYLE}">{"".join(spans)}{more}</div>'


def _span(text: str, tokens: list[Score]) -> str:
    """The `text` of one or, where a character has several, more tokens."""
    bits = sum(map(_bits, tokens))
    opacity = min(0.06 * int(bits), 0.54)  # as in the web UI: no color above a probability of 1/2
    color = f' style="background: rgba({_COLOR}, {opacity:.2f})"' if opacity else ""
    tooltip = "\n".join(map(_tooltip, tokens))
    return f'<span title="{escape(printable(tooltip))}"{color}>{escape(printable(text))}</span>'


def _tooltip(score: Score) -> str:
    """'e': 1.23 bits, rank 2; most likely: 'a' 61.0%, 'e' 42.6%"""
    line = f"{score.text!r}: {_bits(score):.2f} bits, rank {score.rank:,}"
    others = (f"{name!r} {math.exp(logprob):.1%}" for name, logprob in score.alternatives)
    return f"{line}; most likely: {', '.join(others)}" if score.alternatives else line


def _bits(score: Score) -> float:
    return -score.logprob / math.log(2)
