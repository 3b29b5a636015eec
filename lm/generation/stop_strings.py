"""Stop strings: which tokens end a text at one, and what the text is up to there."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lm.generation.constraints import Vocabulary
from lm.generation.overlaps import overlaps
from lm.model.direction import Direction


class StopTokens(NamedTuple):
    """The tokens that end a text, in groups that end it with the same text."""

    tokens: Tensor  # (count,) int64
    groups: Tensor  # (count,) int64: the group of each token
    changes: list[tuple[int, bytes]]  # by group: how many bytes to remove from the text, and which to add


class StopStrings:
    """Texts end before the first of the strings `stop`, which are UTF-8 in reading order, as are all texts.

    `words`: every token is a word with a space before it, except at the start of a line. `hides_space`: the
    first token of a text is written without the space that it begins with.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        stop: Sequence[bytes] = (),
        direction: Direction = Direction.FORWARD,
        *,
        words: bool = False,
        hides_space: bool = False,
    ):
        self._direction, self._stop, self._words = direction, list(filter(None, stop)), words
        self._hides_space = hides_space and direction is Direction.FORWARD
        self._vocabulary = self._without_space = vocabulary
        if words or self._hides_space:
            pieces = [piece and piece.removeprefix(b" ") for piece in vocabulary.pieces]
            self._without_space = Vocabulary(pieces)
        self._reach = max(map(len, self._stop), default=1) - 1
        self._known: dict[tuple[bytes, bool], StopTokens] = {}  # by the end of a text

    def extend(self, text: bytes, token: int, *, first: bool) -> bytes:
        """The text after one more token; `first`: it has none yet."""
        vocabulary = self._without_space if self._lacks_space(text, first) else self._vocabulary
        return text + (vocabulary.pieces[token] or b"")

    def readable(self, text: bytes, *, whole: bool) -> str:
        """The text in text order. A character of which only the first bytes were generated is shown as
        U+FFFD if the text is `whole`, and left out if it was cut by its length."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        shown = decoder.decode(self._direction.reorder(text), whole or self._direction is Direction.BACKWARD)
        # Before words, a backward model writes a space that may belong to a word that does not follow.
        return shown.strip(" ") if self._words and self._direction is Direction.BACKWARD else shown

    def after(self, text: bytes, *, first: bool) -> StopTokens:
        """The tokens that end this text, which contains no stop string; `first`: it has no token yet."""
        key = text[-self._reach :] if self._reach else b"", self._lacks_space(text, first)
        if key not in self._known:
            self._known[key] = self._find(*key)
        return self._known[key]

    def _lacks_space(self, text: bytes, first: bool) -> bool:
        """Whether the next token is written without the space that it begins with."""
        return self._hides_space if first else self._words and text.endswith(b"\n")

    def _find(self, tail: bytes, lacks_space: bool) -> StopTokens:
        """The tokens that end a text with this end."""
        vocabulary = self._without_space if lacks_space else self._vocabulary
        starts: dict[int, int] = {}  # token -> where the first stop string starts: before 0 in the tail
        for string in self._stop:
            for token in vocabulary.containing(string):
                place = (vocabulary.pieces[token] or b"").find(string)
                starts[token] = min(place, starts.get(token, place))
        for string, size in overlaps(tail, self._stop, missing=vocabulary.longest):
            for token in vocabulary.starting_with(string[size:]):
                starts[token] = min(-size, starts.get(token, -size))
        groups: dict[tuple[int, bytes], int] = {}
        group_of = []
        for token, start in starts.items():
            change = (max(-start, 0), (vocabulary.pieces[token] or b"")[: max(start, 0)])
            group_of.append(groups.setdefault(change, len(groups)))
        return StopTokens(
            torch.tensor(list(starts), dtype=torch.long),
            torch.tensor(group_of, dtype=torch.long),
            list(groups),
        )


def merge_equal_texts(
    scores: Tensor, text: bytes, stop_strings: StopStrings, *, first: bool
) -> dict[int, bytes]:
    """The tokens that can end `text`, with the text up to the stop string; `first`: it has no token yet.

    All tokens that end it with the same text become one: in `scores` (vocab,), log-probabilities, the most
    likely of them gets the probability of all, and the others are excluded.
    """
    found = stop_strings.after(text, first=first)
    if not found.changes:
        return {}
    tokens, groups, changes = found.tokens.to(scores.device), found.groups.to(scores.device), found.changes
    theirs = scores[tokens]
    highest = torch.full((len(changes),), -torch.inf, device=scores.device)
    highest = highest.scatter_reduce(0, groups, theirs, "amax")
    shares = torch.where(theirs > -torch.inf, (theirs - highest[groups]).exp(), 0.0)  # -inf - -inf is nan
    totals = highest + torch.zeros_like(highest).index_add(0, groups, shares).log()
    best: dict[int, int] = {}  # by group
    order = theirs.argsort(descending=True, stable=True)
    for token, group in zip(tokens[order].tolist(), groups[order].tolist(), strict=True):
        best.setdefault(group, token)
    scores[tokens] = -torch.inf
    scores[list(best.values())] = totals[list(best)]
    return {
        token: text[: len(text) - removed] + added
        for group, token in best.items()
        for removed, added in [changes[group]]
    }
