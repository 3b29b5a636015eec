"""A text scored by several models, compared word by word because models split a text into different tokens.

Nothing here depends on Gradio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np

from lm.errors import UserError
from lm.insight.scored_text import ScoredText
from lm.insight.spans import Snippet, characters_at, snippet
from lm.insight.surprisal import score_text
from lm.language_model import LanguageModel
from lm.tokenization.positions import Words, positions, words_in, words_of_tokens

from ...draft import restore_controls

# Longer words are split. In Chinese, where no whitespace separates words, a "word" can be a paragraph.
_MAX_WORD_LENGTH = 24  # characters


@dataclass(frozen=True)
class Disagreement:
    """A word and its surprisal under each model."""

    bits: dict[str, float]  # by model: of the word and the whitespace after it
    line: int  # from 1
    snippet: Snippet

    @property
    def difference(self) -> float:
        """The difference between the most and the least surprised model, in bits."""
        return max(self.bits.values()) - min(self.bits.values())


@dataclass(frozen=True)
class Comparison:
    """A text with its scores under several models."""

    text: str
    scored: dict[str, ScoredText]  # by model
    errors: dict[str, UserError]  # by model that cannot score the text

    @cached_property
    def words(self) -> Words:
        """The units of comparison: words. Long words are split where tokens of all models begin."""
        data, words = self.text.encode(), words_in(self.text.encode())
        long = [n for n, text in enumerate(words.texts) if len(text) > _MAX_WORD_LENGTH]
        if not (long and self.scored):
            return words
        common = reduce(np.intersect1d, [scored.starts for scored in self.scored.values()])
        bounds = (np.searchsorted(common, [words.starts[n], words.ends[n]]) for n in long)
        starts = np.unique(np.concatenate([words.starts, *(common[low:high] for low, high in bounds)]))
        # A part ends where the next one begins, the last part of a word where the word ends.
        word = np.searchsorted(words.starts, starts, side="right") - 1
        ends = np.minimum(np.append(starts[1:], len(data)), words.ends[word])
        texts = [data[a:b].decode() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return Words(texts, starts, ends)

    @cached_property
    def bits(self) -> dict[str, np.ndarray]:
        """By model, the bits (words,) of each word and the whitespace after it.

        The whitespace is included because it has tokens of its own in some models and is part of the next
        word's first token in others. Text before the first word counts as part of it.
        """
        count = len(self.words.texts)
        return {
            name: np.bincount(self._word_of_token(scored), scored.bits, minlength=count)[:count]
            for name, scored in self.scored.items()
        }

    @cached_property
    def known(self) -> np.ndarray:
        """Whether (words,) all models know all characters of a word. The bits of <unk> are not comparable."""
        known = np.ones(len(self.words.texts), bool)
        for scored in self.scored.values():
            if len(known):
                known[self._word_of_token(scored)[scored.is_unknown]] = False
        return known

    def spread(self) -> np.ndarray:
        """The difference (words,) between the most and the least surprised model, in bits; 0 if a model does
        not know the word."""
        bits = np.array(list(self.bits.values()))
        return (bits.max(axis=0) - bits.min(axis=0)) * self.known

    def disagreements(self, count: int = 10) -> list[Disagreement]:
        """The `count` words with the largest differences between models, largest first."""
        if len(self.scored) < 2 or not self.words.texts:
            return []
        data, spread = self.text.encode(), self.spread()
        best = [n for n in np.argsort(-spread, kind="stable")[:count].tolist() if spread[n] > 0]
        starts = self.words.starts[best]
        first, after = characters_at(data, starts), characters_at(data, self.words.ends[best] - 1) + 1
        lines = positions(data, starts).line
        return [
            Disagreement(
                {name: float(bits[n]) for name, bits in self.bits.items()},
                int(lines[i]),
                snippet(self.text, int(first[i]), int(after[i])),
            )
            for i, n in enumerate(best)
        ]

    def pieces(self) -> list[str]:
        """The whole text, split into pieces of a word and the whitespace after it."""
        starts = characters_at(self.text.encode(), self.words.starts).tolist()
        return [self.text[a:b] for a, b in pairwise([0, *starts[1:], len(self.text)])]

    def _word_of_token(self, scored: ScoredText) -> np.ndarray:
        """The index (tokens,) of the word that each token belongs to."""
        word, _ = words_of_tokens(scored.starts, len(scored.text), self.words)
        return word.clip(0, max(len(self.words.texts) - 1, 0))


def compare_scores(models: Mapping[str, LanguageModel], text: str) -> Iterator[Comparison]:
    """Score a text with each of `models`; yields the comparison so far after each model.

    Raises UserError if the text is empty.
    """
    # Normalize as score_text does, so that offsets in the text and in its scores agree.
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    if not text:
        raise UserError("the text is empty: there is nothing to score.")
    originals = {restore_controls(model, text) for model in models.values()}
    text = originals.pop() if len(originals) == 1 else text
    scored: dict[str, ScoredText] = {}
    errors: dict[str, UserError] = {}
    for name, model in models.items():
        try:
            scored[name] = score_text(model, text)
        except UserError as error:
            errors[name] = error
        yield Comparison(text, dict(scored), dict(errors))


def unknown_share(scored: ScoredText) -> float:
    """The share of a text's tokens that are <unk>."""
    return scored.unknown / max(len(scored.tokens), 1)
