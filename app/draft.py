"""Draft: a text on the page together with what the model knows about it.

A draft follows the user's edits, is continued by the model, and finds the alternatives at any position. Only
what changed is read again. Nothing here depends on Gradio.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.console.escaping import CONTROLS, printable
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.session import Session
from lm.tokenization.positions import token_starts

NO_BITS = " "  # the mark of characters that the model did not write
GOES_ON = "-"  # the mark of a token's characters after the first
_ZERO, _MOST = 0xE000, 0xF8FF  # Unicode's private use area, which normalization leaves unchanged
_RETURN = printable("\r")


@dataclass(frozen=True)
class Alternatives:
    """The most likely tokens at a position of a draft."""

    start: int  # character offset
    current: str | None  # the token there now; None at the end of the text
    tokens: list[tuple[str, int, float]]  # (displayed text, id, probability), most likely first
    before: Session  # that has read the text before the position


class Draft:
    """A text and the session of `model` that has read it.

    `bits` has one mark for each character of the text: NO_BITS where the model did not write it, else the
    surprisal of its token (`bits_mark`) at the token's first character, and GOES_ON at the others. After each
    token, only the new part of this string goes to the page. `starts` has the character offset of each token
    of the session.
    """

    def __init__(self, model: LanguageModel):
        self.model, self.session = model, model.session()
        self.text = self.bits = ""
        self.starts: list[int] = []

    def fork(self) -> Draft:
        """An independent copy."""
        other = Draft.__new__(Draft)
        other.model, other.session = self.model, self.session.fork()
        other.text, other.bits, other.starts = self.text, self.bits, list(self.starts)
        return other

    def with_text(self, text: str) -> Draft:
        """A draft of `text`, which reads only what follows the beginning that both texts share."""
        draft = self.fork()
        for _ in draft.read(text):
            pass
        return draft

    def first(self, count: int) -> Draft:
        """A draft of the first `count` tokens."""
        draft = self.fork()
        draft._truncate(min(count, len(self.starts)))
        return draft

    def before(self, position: int) -> Draft:
        """The draft up to the token at a character offset."""
        return self.first(self._token_at(position))

    def read(self, text: str) -> Generator[float]:
        """Turn this draft into one of `text`, in steps: yields the share that has been read. If closed
        early, the draft is unusable."""
        if text != self.text:
            count = self._shared_tokens(text)
            self._truncate(count)
            if not count:
                self.text = self.bits = ""  # a model of words has no token for spaces before the first word
            yield from self._feed(text[len(self.text) :])

    def with_token(self, position: int, token: int) -> Draft:
        """The draft up to a character offset, followed by `token`. Raises UserError if the model cannot
        generate that token."""
        if (
            not 0 <= token < self.model.tokenizer.vocab_size
            or token in self.model.generator.suppressed_tokens
        ):
            raise UserError("the model has no such token.")
        draft = self.before(position)
        probabilities = {other: p for _, other, p in draft.session.next(self.model.tokenizer.vocab_size)}
        text = self.model.generator.text_stream(draft.text, draft.session.tokens[1:]).step(token)
        draft.starts.append(len(draft.text))
        draft.session.add(token)
        bits = -math.log2(max(probabilities[token], 1e-9))
        draft._append(printable(text), bits)
        return draft

    def write(self, seed: int, **settings: Any) -> Generator[int]:
        """Let the model continue the draft with the settings of `LanguageModel.stream`; yields the number of
        tokens generated so far after each one. Closing the generator stops the computation."""
        count = 0
        bits = 0.0  # of this token, and of those before it whose text was held back
        pieces = self.session.sample(seed=seed, after_space=self.text[-1:].isspace(), **settings)
        try:
            for piece in pieces:
                bits, text = bits - piece.logprob / math.log(2), printable(piece.text)
                if text.startswith("\n") and self.text.endswith(_RETURN) and self.bits[-1] != NO_BITS:
                    # The two halves of a Windows line ending came as separate tokens: show one line ending.
                    bits += marked_bits(self.bits[-1])
                    self.text, self.bits = self.text[:-1], self.bits[:-1]
                if piece.token >= 0:
                    self.starts.append(len(self.text))
                    count += 1
                if text:
                    self._append(text, bits)
                    bits = 0.0
                yield count
        finally:
            pieces.close()
            # A stop string removes tokens; the rest of the last one is tokenized again.
            del self.starts[len(self.session) :]
            self.starts += [len(self.text)] * (len(self.session) - len(self.starts))

    def alternatives(self, position: int, count: int = 10) -> Alternatives:
        """The most likely tokens in place of the one at a character offset, or after the end of the text."""
        index = self._token_at(position)
        at_end = index == len(self.starts)
        before = self.session.fork()
        before.rewind(len(before) - index)
        tokens = [(printable(name), token, p) for name, token, p in before.next(count)]
        start = len(self.text) if at_end else self.starts[index]
        return Alternatives(start, None if at_end else self.text[start : self._end(index)], tokens, before)

    def _append(self, text: str, bits: float) -> None:
        """Append the text of a token."""
        self.text += text
        self.bits += (bits_mark(bits) + GOES_ON * len(text))[: len(text)]

    def _feed(self, text: str) -> Generator[float]:
        before = len(self.session)
        restored = restore_controls(self.model, text)
        yield from self.session.read(restored)
        tokens = np.array(self.session.tokens[1 + before :], np.int64)
        data = restored.encode("utf-8", "replace")
        byte_starts = token_starts(self.model.tokenizer, data, tokens).tolist()
        # UTF-8 continuation bytes (10xxxxxx) do not start a character.
        character_starts = [at for at, byte in enumerate(data) if byte & 0xC0 != 0x80]
        characters = [bisect_right(character_starts, at) - 1 for at in byte_starts[: len(tokens)]]
        characters += [len(text)] * (len(tokens) - len(characters))
        self.starts += [len(self.text) + at for at in characters]
        self.text += text
        self.bits += NO_BITS * len(text)

    def _truncate(self, count: int) -> None:
        """Keep the first `count` tokens."""
        end = self.starts[count] if count < len(self.starts) else len(self.text)
        self.session.rewind(len(self.starts) - count)
        del self.starts[count:]
        self.text, self.bits = self.text[:end], self.bits[:end]

    def _shared_tokens(self, text: str) -> int:
        """The number of leading tokens that `text` has as well."""
        pairs = zip(self.text, text, strict=False)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(self.text), len(text)))
        count = bisect_left(self.starts, shared)
        while count and self._end(count - 1) > shared:
            count -= 1
        if self.model.tokenizer.kind in ("char", "byte"):
            return count
        # More characters can change how a word is tokenized, so its whole word is read again.
        while count and self._end(count - 1) < len(text) and not text[self._end(count - 1)].isspace():
            count -= 1
            if text[self.starts[count] : self.starts[count] + 1].isspace():
                break
        return count

    def _token_at(self, position: int) -> int:
        """The index of the token at a character offset; the first of several that make up one character."""
        if position >= len(self.text):
            return len(self.starts)
        index = bisect_right(self.starts, max(position, 0)) - 1
        return bisect_left(self.starts, self.starts[index]) if index >= 0 else 0

    def _end(self, index: int) -> int:
        """The character offset at which a token ends: that of the character of which it is a part."""
        following = bisect_right(self.starts, self.starts[index])
        return self.starts[following] if following < len(self.starts) else len(self.text)


def bits_mark(bits: float) -> str:
    """The mark of a surprisal, in hundredths of a bit: one character."""
    return chr(min(_ZERO + max(0, round(100 * bits)), _MOST))


def marked_bits(mark: str) -> float:
    """The surprisal of a mark in bits; 0 for NO_BITS and GOES_ON."""
    return max(0, ord(mark) - _ZERO) / 100


def restore_controls(model: LanguageModel, text: str) -> str:
    """`text` from the page as the model should read it: the symbols shown for control characters are
    control characters again, unless the picture itself is in the vocabulary."""
    for picture in CONTROLS.keys() & set(text):
        if model.tokenizer.unk is None or model.tokenizer.unknown_in(picture):
            text = text.replace(picture, CONTROLS[picture])
    return text
