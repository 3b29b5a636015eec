"""What a text may be: a pattern that it must match, the texts that it may be, strings that it must not
hold, runs of tokens that must not come again.

All but the last know tokens by the bytes that each of them writes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError, one_line


class Constraint(Protocol):
    """What one text may be. Where it is `complete`, the text is whole as it is: any token may be chosen,
    and one that is not allowed ends the text."""

    complete: bool

    def allowed(self) -> Tensor:
        """Which tokens may come next (vocab,) bool."""

    def accept(self, token: int) -> None:
        """Take note of the token that came."""

    def fork(self) -> Self:
        """A second one, for a text that is the same up to here."""


def check_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    """Raise UserError if what is to be added to the logits of tokens names one that there is not."""
    if any(not 0 <= token < vocab_size for token in bias):
        raise UserError(f"the logit bias names a token that is none of 0 to {vocab_size - 1}.")


class Vocabulary:
    """The bytes that each token writes (None: none, like <eos>), prepared for the constraints. For a text
    that is written from its end on, all bytes are in the reverse order."""

    def __init__(self, pieces: Sequence[bytes | None]):
        self.pieces = list(pieces)

    @cached_property
    def writing(self) -> dict[bytes, list[int]]:
        """The tokens that write exactly this."""
        known: dict[bytes, list[int]] = {}
        for token, piece in enumerate(self.pieces):
            if piece:
                known.setdefault(piece, []).append(token)
        return known

    @cached_property
    def automaton(self) -> object:
        """The vocabulary as the library of patterns wants it."""
        from llguidance import LLTokenizer, TokenizerWrapper

        # The library counts on a token for each byte, and one for the end, which here is none of ours. A
        # token that writes nothing is named by a byte that no text holds.
        names = [piece or b"\xff%d" % i for i, piece in enumerate(self.pieces)]
        silent = [i for i, piece in enumerate(self.pieces) if not piece]
        names += [bytes([byte]) for byte in range(256)] + [b"\xffend"]
        known = {name: i for i, name in reversed(list(enumerate(names)))}
        longest = max(map(len, names))

        class Wrapped:
            eos_token_id, bos_token_id = len(names) - 1, None
            tokens, special_token_ids = names, [*silent, len(names) - 1]

            def __call__(self, text: str | bytes) -> list[int]:
                """Text that can only be this, in tokens, always the longest that fits."""
                rest, tokens = text.encode() if isinstance(text, str) else text, []
                while rest:
                    size = next(n for n in range(min(longest, len(rest)), 0, -1) if rest[:n] in known)
                    tokens.append(known[rest[:size]])
                    rest = rest[size:]
                return tokens

        return LLTokenizer(TokenizerWrapper(Wrapped()), n_vocab=len(names), slices=[])

    def holding(self, string: bytes) -> list[int]:
        """The tokens that hold a string."""
        return [i for i, piece in enumerate(self.pieces) if piece and string in piece]

    def beginning(self, string: bytes) -> list[int]:
        """The tokens that begin with a string."""
        return [i for i, piece in enumerate(self.pieces) if piece and piece.startswith(string)]


class Match:
    """The text matches a regular expression, from its first character on; it may end wherever it does.

    By llguidance, in the syntax of Rust's `regex`. `leading_space`: the tokens are words, which are
    written with a space before them, the first too. Raises UserError for a pattern that it refuses.
    """

    def __init__(self, vocabulary: Vocabulary, pattern: str, *, leading_space: bool = False):
        from llguidance import LLMatcher

        whole = f" ?({pattern})" if leading_space else pattern
        self._matcher = LLMatcher(vocabulary.automaton, LLMatcher.grammar_from_regex(whole))
        self._pattern, self._size = pattern, len(vocabulary.pieces)
        self._allowed: Tensor | None = None
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text so far matches as it is."""
        return self._matcher.is_accepting()

    def allowed(self) -> Tensor:
        """Which tokens may come next (vocab,) bool."""
        if self._allowed is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._check()
            self._allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._size] > 0)
        return self._allowed

    def accept(self, token: int) -> None:
        """Take note of the token that came."""
        self._matcher.consume_token(token)
        self._allowed = None

    def fork(self) -> Match:
        """A second one, for a text that is the same up to here."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other

    def _check(self) -> None:
        """Some patterns turn out to be too large only when they are used."""
        if self._matcher.is_error():
            reason = one_line(self._matcher.get_error(), 160)
            raise UserError(f"the pattern {self._pattern[:80]!r} cannot be used: {reason}")


class OneOf:
    """The text is one of some strings."""

    def __init__(self, vocabulary: Vocabulary, strings: Sequence[bytes]):
        self._vocabulary = vocabulary
        self._rests = set(strings)  # what may still come

    @property
    def complete(self) -> bool:
        """Whether the text so far is one of them."""
        return b"" in self._rests

    def allowed(self) -> Tensor:
        """Which tokens may come next (vocab,) bool."""
        beginnings = {rest[:size] for rest in self._rests for size in range(1, len(rest) + 1)}
        writing = self._vocabulary.writing
        allowed = torch.zeros(len(self._vocabulary.pieces), dtype=torch.bool)
        allowed[[token for text in beginnings & writing.keys() for token in writing[text]]] = True
        return allowed

    def accept(self, token: int) -> None:
        """Take note of the token that came."""
        piece = self._vocabulary.pieces[token] or b""
        self._rests = {rest[len(piece) :] for rest in self._rests if rest.startswith(piece)}

    def fork(self) -> OneOf:
        """A second one, for a text that is the same up to here."""
        return copy.copy(self)


class Banned:
    """The text, and what it makes with the prompt's end, holds none of some strings."""

    complete = False

    def __init__(self, vocabulary: Vocabulary, strings: Sequence[bytes], before: bytes = b""):
        self._vocabulary = vocabulary
        self._strings = list(filter(None, strings))
        self._reach = max(map(len, self._strings), default=1) - 1
        self._tail = self._kept(before)
        always = {token for string in self._strings for token in vocabulary.holding(string)}
        self._always = torch.ones(len(vocabulary.pieces), dtype=torch.bool)
        self._always[list(always)] = False
        self._ending: dict[bytes, list[int]] = {}

    def allowed(self) -> Tensor:
        """Which tokens may come next (vocab,) bool."""
        allowed = self._always
        for string in self._strings:
            for begun in range(1, len(string)):
                if self._tail.endswith(string[:begun]):
                    rest = string[begun:]
                    if rest not in self._ending:
                        self._ending[rest] = self._vocabulary.beginning(rest)
                    allowed = allowed.clone()
                    allowed[self._ending[rest]] = False
        return allowed

    def accept(self, token: int) -> None:
        """Take note of the token that came."""
        self._tail = self._kept(self._tail + (self._vocabulary.pieces[token] or b""))

    def fork(self) -> Banned:
        """A second one, for a text that is the same up to here."""
        return copy.copy(self)

    def _kept(self, text: bytes) -> bytes:
        return text[-self._reach :] if self._reach else b""


class NoRepeat:
    """No run of `size` tokens comes twice, those that were `written` before included (Paulus et al. 2017,
    arXiv:1705.04304, have it for three)."""

    complete = False

    def __init__(self, vocab_size: int, size: int, written: Sequence[int]):
        self._vocab_size, self._size = vocab_size, size
        self._after: dict[tuple[int, ...], set[int]] = {}  # what has followed all but the last of a run
        self._tail: tuple[int, ...] = ()
        for token in written:
            self.accept(token)

    def allowed(self) -> Tensor:
        """Which tokens may come next (vocab,) bool."""
        allowed = torch.ones(self._vocab_size, dtype=torch.bool)
        allowed[list(self._after.get(self._tail, ()))] = False
        return allowed

    def accept(self, token: int) -> None:
        """Take note of the token that came."""
        if len(self._tail) == self._size - 1:
            self._after.setdefault(self._tail, set()).add(token)
        self._tail = (*self._tail, token)[-self._size + 1 :] if self._size > 1 else ()

    def fork(self) -> NoRepeat:
        """A second one, for a text that is the same up to here."""
        other = copy.copy(self)
        other._after = {run: set(tokens) for run, tokens in self._after.items()}
        return other
