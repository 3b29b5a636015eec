"""What a text may be: a pattern that it must match, strings that it must not hold.

They know tokens by the bytes that each of them writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lm.errors import UserError, one_line


class Vocabulary:
    """The bytes that each token writes (None: none, like <eos>), prepared for the constraints."""

    def __init__(self, pieces: Sequence[bytes | None]):
        self.pieces = list(pieces)

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

    By llguidance, in the syntax of Rust's `regex`. `after_a_space`: the tokens are words, which are
    written with a space before them, the first too. Raises UserError for a pattern that it refuses.
    """

    def __init__(self, vocabulary: Vocabulary, pattern: str, *, after_a_space: bool = False):
        from llguidance import LLMatcher

        whole = f" ?({pattern})" if after_a_space else pattern
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

    def _check(self) -> None:
        """Some patterns turn out to be too large only when they are used."""
        if self._matcher.is_error():
            reason = one_line(self._matcher.get_error(), 160)
            raise UserError(f"the pattern {self._pattern[:80]!r} cannot be used: {reason}")


def one_of(strings: Sequence[str]) -> str:
    """The pattern that matches these strings and nothing else."""
    special = r"\.+*?()|[]{}^$#&-~/"
    escaped = ("".join("\\" + c if c in special else c for c in string) for string in strings)
    return "|".join(f"({string})" for string in escaped)


class Banned:
    """The text, and what it makes with the prompt's end, holds none of some strings."""

    complete = False

    def __init__(self, vocabulary: Vocabulary, strings: Sequence[str], before: bytes = b""):
        self._vocabulary = vocabulary
        self._strings = [string.encode() for string in strings if string]
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

    def _kept(self, text: bytes) -> bytes:
        return text[-self._reach :] if self._reach else b""
