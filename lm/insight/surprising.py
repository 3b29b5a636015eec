"""Find the most surprising tokens or words of a scored text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.insight.scored_text import ScoredText
from lm.insight.spans import Snippet, characters_at, snippet, token_spans
from lm.tokenization.positions import positions


@dataclass(frozen=True)
class SurprisingSpan:
    """A token or word and its surprisal."""

    bits: float
    index: int  # of the token or word in the text
    line: int  # in its document, from 1
    column: int  # from 1
    snippet: Snippet  # in characters of the whole text, separators of documents included


def most_surprising(scored: ScoredText, count: int = 10, *, words: bool = False) -> list[SurprisingSpan]:
    """The `count` tokens, or words, with the highest surprisal, highest first. That of a word is the sum over
    its tokens, without the whitespace after it."""
    if words:
        bits = np.asarray(scored.per_word()["surprisal"])
        starts, ends = scored.words.starts, scored.words.ends
        first, after = characters_at(scored.text, starts), characters_at(scored.text, ends - 1) + 1
    else:
        bits, starts = scored.bits, scored.starts
        first, after = token_spans(scored.tokenizer, scored.text, scored.tokens)
    best = np.argsort(-bits, kind="stable")[:count]
    at, text = positions(scored.text, starts[best]), scored.text.decode("utf-8", "replace")
    return [
        SurprisingSpan(float(bits[i]), i, line, column, snippet(text, int(first[i]), int(after[i])))
        for i, line, column in zip(best.tolist(), at.line.tolist(), at.column.tolist(), strict=True)
    ]
