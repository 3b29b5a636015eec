"""Several models beside each other: each goes on with one prompt, and each scores one text.

Texts are compared word by word, since models cut a text into different tokens. Nothing here knows of Gradio.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from lm.errors import UserError
from lm.insight.places import Snippet, characters_at, snippet
from lm.insight.surprisal import ScoredText, score_text
from lm.language_model import LanguageModel
from lm.tokenization.positions import Words, positions, words_in, words_of_tokens

from ...continuation import update_interval
from ...draft import Draft, restore_controls

MOST_SIDES = 4
_TOKENS_PER_CHARACTER = 4  # at most: a byte is a token, and four of them make a character
_LONGEST_WORD = 24  # characters; in Chinese a word, which is what stands between white space, is a paragraph

log = logging.getLogger(__name__)


@dataclass
class Side:
    """One of those that write: a model and how it chooses its tokens. `text` grows."""

    model: LanguageModel
    temperature: float
    top_p: float
    text: str = ""  # the prompt and what was written
    tokens: int = 0  # that were written
    going_on: bool = True
    complete: bool = False  # as long as was asked for

    @property
    def ended(self) -> bool:
        """Whether the model ended its text before the length that was asked for."""
        return not self.going_on and not self.complete


def side_by_side(sides: Sequence[Side], prompt: str, seed: int, length: int) -> Iterator[None]:
    """Let all `sides` go on with `prompt`, each with the same seed and up to `length` characters, for
    tokens of different models are of different sizes; yields some twenty times a second.

    The sides take turns, a token each. Tokens are made only while this is being read: closing it ends the
    computation. Raises UserError before anything is written.
    """
    begin, shown, how = time.perf_counter(), 0.0, "stopped"
    drafts = [Draft(side.model).with_text(prompt) for side in sides]
    try:
        with ExitStack() as stack:
            writers = [
                stack.enter_context(
                    closing(
                        draft.write(
                            seed,
                            max_new_tokens=length * _TOKENS_PER_CHARACTER,
                            temperature=side.temperature,
                            top_p=side.top_p,
                        )
                    )
                )
                for side, draft in zip(sides, drafts, strict=True)
            ]
            for side, draft in zip(sides, drafts, strict=True):
                side.text = draft.text
            while any(side.going_on for side in sides):
                for side, draft, writer in zip(sides, drafts, writers, strict=True):
                    if side.going_on:
                        _step(side, draft, writer, len(prompt) + length)
                if time.perf_counter() - shown >= update_interval(sum(len(side.text) for side in sides)):
                    shown = time.perf_counter()
                    yield
        how = "complete"
        yield
    finally:
        tokens = sum(side.tokens for side in sides)
        log.info("%d tokens in %.1f s beside each other: %s", tokens, time.perf_counter() - begin, how)


def _step(side: Side, draft: Draft, writer: Iterator[int], until: int) -> None:
    """One more token of a side, whose text shall be `until` characters long."""
    made = next(writer, None)
    side.tokens = side.tokens if made is None else made
    side.text = draft.text
    side.complete = len(side.text) >= until
    side.going_on = made is not None and not side.complete


@dataclass(frozen=True)
class Disagreement:
    """A word, and how surprising each model found it."""

    bits: dict[str, float]  # by model: of the word and the white space after it
    line: int  # from 1
    place: Snippet

    @property
    def difference(self) -> float:
        """Between the most and the least surprised model, in bits."""
        return max(self.bits.values()) - min(self.bits.values())


@dataclass(frozen=True)
class Judgement:
    """A text as several models have scored it."""

    text: str
    scored: dict[str, ScoredText]  # by the name of the model
    refused: dict[str, str]  # by the name of the model, why it could not score the text

    @cached_property
    def words(self) -> Words:
        """What is compared: the words, and of a very long one the parts between which all models can tell."""
        data, words = self.text.encode(), words_in(self.text.encode())
        long = [n for n, text in enumerate(words.texts) if len(text) > _LONGEST_WORD]
        if not (long and self.scored):
            return words
        common = _common_places([scored.starts for scored in self.scored.values()])
        starts = set(words.starts.tolist())
        for number in long:
            low, high = np.searchsorted(common, [words.starts[number], words.ends[number]])
            starts.update(common[low:high].tolist())
        begins = np.array(sorted(starts), np.int64)
        # A part ends where the next begins or, if it is the last of its word, where the word does.
        word = np.searchsorted(words.starts, begins, side="right") - 1
        ends = np.minimum(np.append(begins[1:], len(data)), words.ends[word])
        texts = [data[a:b].decode() for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        return Words(texts, begins, ends)

    @cached_property
    def bits(self) -> dict[str, np.ndarray]:
        """By model the bits (words,) of each word and the white space after it.

        The white space belongs to it, since one model has it as tokens of their own and another in the next
        word's first; what stands before the first word counts with that.
        """
        count = len(self.words.texts)
        return {
            name: np.bincount(self._word_of(scored), scored.bits, minlength=count)[:count]
            for name, scored in self.scored.items()
        }

    @cached_property
    def known(self) -> np.ndarray:
        """Whether (words,) all models know all characters of a word: what is <unk> to one has bits that
        say nothing."""
        known = np.ones(len(self.words.texts), bool)
        for scored in self.scored.values():
            if scored.tokenizer.unk is not None and len(known):
                known[self._word_of(scored)[scored.tokens == scored.tokenizer.unk]] = False
        return known

    def spread(self) -> np.ndarray:
        """Between the most and the least surprised model, in bits (words,); 0 where one does not know."""
        bits = np.array(list(self.bits.values()))
        return (bits.max(axis=0) - bits.min(axis=0)) * self.known

    def disagreements(self, count: int = 10) -> list[Disagreement]:
        """The `count` words about which the models disagree most, the worst first."""
        if len(self.scored) < 2 or not self.words.texts:
            return []
        data, spread = self.text.encode(), self.spread()
        best = [n for n in np.argsort(-spread, kind="stable")[:count].tolist() if spread[n] > 0]
        starts = self.words.starts[best]
        first, behind = characters_at(data, starts), characters_at(data, self.words.ends[best] - 1) + 1
        lines = positions(data, starts).line
        return [
            Disagreement(
                {name: float(bits[n]) for name, bits in self.bits.items()},
                int(lines[i]),
                snippet(self.text, int(first[i]), int(behind[i])),
            )
            for i, n in enumerate(best)
        ]

    def pieces(self) -> list[str]:
        """The text in parts of a word and the white space after it, which together are the whole text."""
        places = characters_at(self.text.encode(), self.words.starts).tolist()
        borders = [0, *places[1:], len(self.text)]
        return [self.text[a:b] for a, b in pairwise(borders)]

    def _word_of(self, scored: ScoredText) -> np.ndarray:
        """The word (tokens,) to which each token counts."""
        word, _ = words_of_tokens(scored.starts, len(scored.text), self.words)
        return word.clip(0, max(len(self.words.texts) - 1, 0))


def judged(models: Mapping[str, LanguageModel], text: str) -> Iterator[Judgement]:
    """Let each of `models` score a text; yields after each what is known by then. Raises UserError if the
    text is empty."""
    # As each model is to read it; counted in the same bytes by all.
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    if not text:
        raise UserError("the text is empty: there is nothing to score.")
    meant = {restore_controls(model, text) for model in models.values()}
    text = meant.pop() if len(meant) == 1 else text
    scored: dict[str, ScoredText] = {}
    refused: dict[str, str] = {}
    for name, model in models.items():
        try:
            scored[name] = score_text(model, text)
        except UserError as error:
            refused[name] = str(error)
        yield Judgement(text, dict(scored), dict(refused))


def unknown_share(scored: ScoredText) -> float:
    """The share of a text's tokens that the model does not know."""
    return scored.unknown / max(len(scored.tokens), 1)


def perplexity(scored: ScoredText) -> float:
    """Per token of that model."""
    return math.exp(min(float(scored.losses.mean()), 700.0))


def _common_places(starts: Sequence[np.ndarray]) -> np.ndarray:
    """The places at which a token of every model begins."""
    common = np.unique(starts[0])
    for other in starts[1:]:
        common = np.intersect1d(common, other)
    return common
