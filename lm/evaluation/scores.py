"""Scores: the scores of the tokens of a text, which a notebook displays as colored text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import SupportsIndex, overload

from lm.console.escaping import printable
from lm.evaluation.losses import Score
from lm.tokenization.tokenizer import Tokenizer

_MAX_SHOWN = 5000  # tokens
_COLOR = "234, 88, 12"
_STYLE = "white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace; line-height: 1.6"


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
