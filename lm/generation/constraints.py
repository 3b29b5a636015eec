"""Constraints on generated text: a pattern to match, a list of choices, banned strings, no repeated n-grams.

All except the last see a token as the bytes that it writes.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError
from lm.generation import patterns
from lm.generation.overlaps import overlaps

if TYPE_CHECKING:
    from llguidance import LLTokenizer


_MAX_BIAS = 1e30
_START = b"\xff"  # a byte that occurs in no text
_BYTES, _TOKEN = 4, ">u4"  # a token in the text of NoRepeat: bytes are in the order of the numbers
_UNINDEXED = 1 << 14  # bytes that NoRepeat searches directly


class Constraint(Protocol):
    """A restriction on one text. Once the text is `complete`, every token can be drawn, and drawing one that
    is not allowed ends the text."""

    @property
    def complete(self) -> bool:
        """Whether the text so far can end here."""

    def allowed(self) -> Tensor:
        """Mask (vocab,) bool of the tokens that can come next."""

    def accept(self, token: int) -> None:
        """Update for the token that was chosen."""

    def fork(self) -> Self:
        """An independent copy, for a text with the same beginning."""


def check_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    """Raise UserError for a logit bias of a token that does not exist, or a value that logits cannot have."""
    if any(not 0 <= token < vocab_size for token in bias):
        raise UserError(f"token ids in the logit bias must be between 0 and {vocab_size - 1}.")
    if any(not -_MAX_BIAS <= value <= _MAX_BIAS and value != -math.inf for value in bias.values()):
        raise UserError(f"a logit bias must be between -{_MAX_BIAS:g} and {_MAX_BIAS:g}, or -inf.")


def no_token_allowed(count: int) -> UserError:
    """The error for constraints that exclude every token after `count` tokens."""
    return UserError(
        f"no token is allowed after the first {count}: the pattern, choices, banned strings, logit bias"
        " or n-gram limit exclude all that the model has."
    )


class Vocabulary:
    """The bytes that each token writes (None: nothing, as for <eos>), prepared for the constraints. For text
    generated right to left, the bytes of each token are reversed."""

    def __init__(self, pieces: Sequence[bytes | None]):
        self.pieces = list(pieces)

    @cached_property
    def tokens_of(self) -> dict[bytes, list[int]]:
        """The tokens that write exactly these bytes."""
        tokens: dict[bytes, list[int]] = {}
        for token, piece in enumerate(self.pieces):
            if piece:
                tokens.setdefault(piece, []).append(token)
        return tokens

    @cached_property
    def longest(self) -> int:
        """The number of bytes that the longest token writes."""
        return max((len(piece) for piece in self.pieces if piece), default=0)

    @cached_property
    def for_llguidance(self) -> LLTokenizer:
        """The vocabulary in the form that llguidance requires."""
        from llguidance import LLTokenizer, TokenizerWrapper

        # llguidance expects a token for each byte and one for the end, none of which exist here. A token
        # that writes nothing gets a name with a byte that occurs in no text.
        names = [piece or b"\xff%d" % i for i, piece in enumerate(self.pieces)]
        silent = [i for i, piece in enumerate(self.pieces) if not piece]
        names += [bytes([byte]) for byte in range(256)] + [b"\xffend"]
        ids = {name: i for i, name in reversed(list(enumerate(names)))}
        longest = max(map(len, names))

        class Wrapped:
            eos_token_id, bos_token_id = len(names) - 1, None
            tokens, special_token_ids = names, [*silent, len(names) - 1]

            def __call__(self, text: str | bytes) -> list[int]:
                """Tokenize greedily, always with the longest token that fits."""
                rest, tokens = text.encode() if isinstance(text, str) else text, []
                while rest:
                    size = next(n for n in range(min(longest, len(rest)), 0, -1) if rest[:n] in ids)
                    tokens.append(ids[rest[:size]])
                    rest = rest[size:]
                return tokens

        return LLTokenizer(TokenizerWrapper(Wrapped()), n_vocab=len(names), slices=[])

    def starting_with(self, string: bytes) -> list[int]:
        """The tokens that start with a string, which is part of a text."""
        return self.containing(_START + string)

    def containing(self, string: bytes) -> list[int]:
        """The tokens that contain a string, which is part of a text."""
        joined, starts = self._joined
        tokens = []
        at = joined.find(string)
        while at >= 0:
            tokens.append(bisect_right(starts, at) - 1)
            at = joined.find(string, starts[tokens[-1] + 1])
        return tokens

    @cached_property
    def _joined(self) -> tuple[bytes, list[int]]:
        """All pieces, each after _START, and the offset of each: one search is faster than thousands."""
        pieces = [_START + (piece or b"") for piece in self.pieces]
        return b"".join(pieces), [0, *accumulate(map(len, pieces))]


class Match:
    """The text matches a regular expression, from its first character on; it can end wherever it matches.

    Patterns are in the syntax of Rust's `regex`, without \\b and \\B, and run by llguidance.
    `leading_space`: every token is a word written with a space before it, the first one too. Raises UserError
    for a pattern that it rejects.
    """

    def __init__(self, vocabulary: Vocabulary, pattern: str, *, leading_space: bool = False):
        from llguidance import LLMatcher

        grammar = patterns.grammar_of(pattern, leading_space)
        self._matcher = LLMatcher(vocabulary.for_llguidance, grammar, log_level=0, limits=patterns.limits())
        self._pattern, self._vocab_size = pattern, len(vocabulary.pieces)
        self._allowed: Tensor | None = None
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text so far matches."""
        return self._matcher.is_accepting()

    def allowed(self) -> Tensor:
        """Mask (vocab,) bool of the tokens that can come next."""
        if self._allowed is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._check()
            self._allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._vocab_size] > 0)
        return self._allowed

    def accept(self, token: int) -> None:
        """Update for the token that was chosen."""
        self._matcher.consume_token(token)
        self._allowed = None

    def fork(self) -> Match:
        """An independent copy, for a text with the same beginning."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other

    def _check(self) -> None:
        """Raise UserError if the pattern failed; some turn out to be too large only when used."""
        if self._matcher.is_error():
            raise patterns.explain(self._pattern, self._matcher.get_error())


class _Copied:
    """A constraint whose attributes, apart from caches, are replaced rather than changed in place."""

    def fork(self) -> Self:
        """An independent copy, for a text with the same beginning."""
        return copy.copy(self)


class OneOf(_Copied):
    """The text is one of several strings. Strings that the vocabulary cannot spell are ignored, and tokens
    that lead to a dead end are not allowed."""

    def __init__(self, vocabulary: Vocabulary, strings: Sequence[bytes]):
        self._vocabulary = vocabulary
        # string -> the offsets from which tokens can write the rest of it
        self._writable = {string: self._writable_from(string) for string in set(strings)}
        # What the text can become, and how much of it has been written.
        self._places = {(string, 0) for string, offsets in self._writable.items() if 0 in offsets}

    @property
    def possible(self) -> bool:
        """Whether tokens can write any of the strings."""
        return bool(self._places)

    @property
    def complete(self) -> bool:
        """Whether the text so far is one of the strings."""
        return any(at == len(string) for string, at in self._places)

    def allowed(self) -> Tensor:
        """Mask (vocab,) bool of the tokens that can come next."""
        pieces = {
            piece for string, at in self._places for piece in self._next(string, at, self._writable[string])
        }
        tokens_of = self._vocabulary.tokens_of
        allowed = torch.zeros(len(self._vocabulary.pieces), dtype=torch.bool)
        allowed[[token for piece in pieces for token in tokens_of[piece]]] = True
        return allowed

    def accept(self, token: int) -> None:
        """Update for the token that was chosen."""
        piece = self._vocabulary.pieces[token] or b""
        self._places = {
            (string, at + len(piece)) for string, at in self._places if string.startswith(piece, at)
        }

    def _writable_from(self, string: bytes) -> set[int]:
        """The offsets in a string from which tokens can write the rest of it."""
        offsets = {len(string)}
        for at in reversed(range(len(string))):
            if any(True for _ in self._next(string, at, offsets)):
                offsets.add(at)
        return offsets

    def _next(self, string: bytes, at: int, offsets: set[int]) -> Iterator[bytes]:
        """What tokens write that lead from an offset in a string to another of these `offsets`."""
        for end in range(at + 1, min(at + self._vocabulary.longest, len(string)) + 1):
            if end in offsets and string[at:end] in self._vocabulary.tokens_of:
                yield string[at:end]


class Banned(_Copied):
    """The text, joined to the end of the prompt `before`, contains none of some strings."""

    complete = False

    def __init__(self, vocabulary: Vocabulary, strings: Sequence[bytes], before: bytes = b""):
        self._vocabulary = vocabulary
        self._strings = list(filter(None, strings))
        self._reach = max(map(len, self._strings), default=1) - 1
        self._tail = self._last_bytes(before)
        excluded = {token for string in self._strings for token in vocabulary.containing(string)}
        self._not_containing = torch.ones(len(vocabulary.pieces), dtype=torch.bool)
        self._not_containing[list(excluded)] = False
        self._completing: dict[bytes, list[int]] = {}  # the rest of a banned string -> tokens that write it

    def allowed(self) -> Tensor:
        """Mask (vocab,) bool of the tokens that can come next."""
        # A string that lacks more than the longest token has cannot be completed by one.
        found = overlaps(self._tail, self._strings, missing=self._vocabulary.longest)
        allowed = self._not_containing.clone()
        for rest in {string[size:] for string, size in found}:
            if rest not in self._completing:
                self._completing[rest] = self._vocabulary.starting_with(rest)
            allowed[self._completing[rest]] = False
        return allowed

    def accept(self, token: int) -> None:
        """Update for the token that was chosen."""
        self._tail = self._last_bytes(self._tail + (self._vocabulary.pieces[token] or b""))

    def _last_bytes(self, text: bytes) -> bytes:
        """The end of a text that could belong to a banned string."""
        return text[-self._reach :] if self._reach else b""


class NoRepeat(_Copied):
    """No n-gram of `size` tokens occurs twice, including those in the tokens `history` (Paulus et al. 2017,
    arXiv:1705.04304, for trigrams).

    The distinct n-grams of the history are in an index: their positions in lexicographic order, in which a
    binary search finds all that begin with the last tokens. Newer tokens are searched directly, and from time
    to time are added to the index. Nothing is changed in place: forks share everything.
    """

    complete = False

    def __init__(self, vocab_size: int, size: int, history: Sequence[int]):
        self._vocab_size, self._size = vocab_size, size
        self._overlap = _BYTES * (size - 1)  # what an n-gram and the one after it have in common
        self._index(np.array(history, _TOKEN).tobytes())

    def allowed(self) -> Tensor:
        """Mask (vocab,) bool of the tokens that can come next."""
        allowed = torch.ones(self._vocab_size, dtype=torch.bool)
        if len(self._recent) >= self._overlap:
            allowed[torch.from_numpy(self._repeating())] = False
        return allowed

    def accept(self, token: int) -> None:
        """Update for the token that was chosen."""
        self._recent += token.to_bytes(_BYTES, "big")
        if len(self._recent) > self._overlap + max(_UNINDEXED, len(self._indexed)):
            self._index(self._indexed + self._recent[min(self._overlap, len(self._indexed)) :])

    def _index(self, text: bytes) -> None:
        tokens = np.frombuffer(text, _TOKEN).astype(np.int64)
        self._indexed, self._starts = text, _distinct_ngrams(tokens, self._size)
        self._lasts = tokens[self._starts + self._size - 1]
        # What later n-grams begin with, and the tokens that follow.
        self._recent = text[max(0, len(text) - self._overlap) :]

    def _repeating(self) -> np.ndarray:
        """The tokens that have already come after the last size - 1 tokens."""
        text, overlap = self._recent, self._overlap
        last = text[len(text) - overlap :]

        def beginning(start: int) -> bytes:
            return self._indexed[start * _BYTES : start * _BYTES + overlap]

        first = bisect_left(self._starts, last, key=beginning)
        end = bisect_right(self._starts, last, lo=first, key=beginning)
        later, at = [], text.find(last)
        while 0 <= at < len(text) - overlap:
            if at % _BYTES == 0:
                later.append(int.from_bytes(text[at + overlap : at + overlap + _BYTES], "big"))
            at = text.find(last, at - at % _BYTES + _BYTES)  # the next token at the earliest
        return np.concatenate([self._lasts[first:end], np.array(later, np.int64)])


def _distinct_ngrams(tokens: np.ndarray, size: int) -> np.ndarray:
    """Where each distinct n-gram of `size` tokens begins in `tokens` (tokens,) int64, in lexicographic order.

    An n-gram is replaced by its rank. The ranks of the n-grams at two positions determine that of the longer
    one that both cover, so that the length doubles in each round.
    """
    if len(tokens) < size:
        return np.zeros(0, np.int64)
    ranks, length = tokens, 1
    _, starts = np.unique(ranks, return_index=True)
    while length < size:
        step = min(length, size - length)
        pairs = ranks[:-step] * (ranks.max() + 1) + ranks[step:]
        _, starts, ranks = np.unique(pairs, return_index=True, return_inverse=True)
        length += step
    return starts
