"""From generated tokens to displayable text: whole characters only, and no stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lm.generation.overlaps import Search
from lm.tokenization.tokenizer import Tokenizer


class Detokenizer(Protocol):
    """The text of one sequence as it is generated. `ended` is set by a stop string or the last token."""

    ended: bool

    def add(self, token: int, last: bool) -> str:
        """The text that can be displayed after `token`; `last`: no further token will follow."""

    def rest(self) -> str:
        """The text that is still held back after the sequence has ended."""


class ForwardDetokenizer:
    """Text after the tokens `context`, which ends at the first of the `stop` strings. It is displayed as soon
    as it cannot be part of one."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], context: list[int]):
        self._end, self._stream = tokenizer.end, tokenizer.decode_stream(context)
        self._stop = [Search(string) for string in stop if string]
        self._held = ""
        self.ended = False

    def add(self, token: int, last: bool) -> str:
        """The text that can be displayed after `token`."""
        new = self._stream.step(token)
        text = self._held + new
        # Where stop strings start in the new text: before 0 in what was held back.
        starts = [end - len(search.string) for search in self._stop if (end := search.find(new)) >= 0]
        if starts:
            shown = text[: len(self._held) + min(starts)]
            self.ended, self._held = True, ""
            return shown
        self.ended = last or token == self._end
        hold = 0 if self.ended else max((search.overlap for search in self._stop), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def rest(self) -> str:
        """The text that was held back, if the sequence ended without a stop string."""
        held, self._held = self._held, ""
        return held


class BackwardDetokenizer:
    """Text before the tokens `context`, generated from right to left. It can be read only when complete:
    `add` displays nothing, `rest` everything from the last stop string on."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], context: list[int]):
        self._tokenizer, self._context = tokenizer, context
        self._stop = tuple(filter(None, stop))
        # This many tokens always contain a stop string and the rest of a character after it.
        self._reach = max((len(s.encode()) for s in self._stop), default=0) + 4
        self._tokens: list[int] = []  # in the order of generation
        self.ended = False

    def add(self, token: int, last: bool) -> str:
        """Put `token` before the text."""
        self._tokens.append(token)
        newest = self._tokenizer.decode(self._tokens[: -self._reach - 1 : -1]) if self._stop else ""
        self.ended = last or token == self._tokenizer.end or any(s in newest for s in self._stop)
        return ""

    def rest(self) -> str:
        """The whole text, in text order."""
        decode = self._tokenizer.decode
        text = decode([*self._tokens[::-1], *self._context]).removesuffix(decode(self._context))
        return text[max((text.rfind(s) + len(s) for s in self._stop if s in text), default=0) :]
