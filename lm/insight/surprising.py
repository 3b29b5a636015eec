"""The most surprising places of a scored text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.insight.places import Snippet, characters_at, snippet, token_spans
from lm.insight.surprisal import ScoredText
from lm.tokenization.positions import positions


@dataclass(frozen=True)
class SurprisingPlace:
    """A token or a word, and how unexpected it was."""

    bits: float
    number: int  # of the token, or the word, in the text
    line: int  # of its document, from 1
    column: int  # from 1
    place: Snippet  # in characters of the whole text, separators of documents counted


def most_surprising(scored: ScoredText, count: int = 10, *, words: bool = False) -> list[SurprisingPlace]:
    """The `count` tokens, or `words`, with the most bits, the most surprising first. A word's bits are the
    sum of its tokens', without the white space behind it."""
    if words:
        bits = np.asarray(scored.per_word()["surprisal"])
        starts, ends = scored.words.starts, scored.words.ends
        first, behind = characters_at(scored.text, starts), characters_at(scored.text, ends - 1) + 1
    else:
        bits, starts = scored.bits, scored.starts
        first, behind = token_spans(scored.tokenizer, scored.text, scored.tokens)
    best = np.argsort(-bits, kind="stable")[:count]
    at, text = positions(scored.text, starts[best]), scored.text.decode("utf-8", "replace")
    return [
        SurprisingPlace(float(bits[n]), n, line, column, snippet(text, int(first[n]), int(behind[n])))
        for n, line, column in zip(best.tolist(), at.line.tolist(), at.column.tolist(), strict=True)
    ]
