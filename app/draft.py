"""A text on the page with what the model knows of it: its state after each token, and how likely each was.

A draft can be followed as a person edits it, continued, and asked what else could have stood at a place. Only
what has changed is read again. Nothing here knows of Gradio.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.escaping import CONTROLS, printable
from lm.language_model import LanguageModel
from lm.tokenization.positions import token_starts

from .ui.token_view import surprisal_level

_RETURN = printable("\r")
NOT_WRITTEN = " "  # the level of what the model has not written


@dataclass(frozen=True)
class Alternatives:
    """What could stand at one place of a draft."""

    start: int  # where it stands in the text
    there: str | None  # the token that does; None at the end of the text
    tokens: list[tuple[str, int, float]]  # what to show, the id, the probability; the likeliest first


class Draft:
    """A text and the session of `model` that has read it. `levels` has a digit for each character that
    the model wrote, its surprisal in bits, and a space for each other one."""

    def __init__(self, model: LanguageModel):
        self.model, self.session = model, model.session()
        self.text = self.levels = ""
        self._starts: list[int] = []  # where in the text each token of the session begins

    @property
    def written(self) -> int:
        """How many tokens the session has read or written."""
        return len(self._starts)

    def fork(self) -> Draft:
        """A copy that goes its own way."""
        other = Draft.__new__(Draft)
        other.model, other.session = self.model, self.session.fork()
        other.text, other.levels, other._starts = self.text, self.levels, list(self._starts)
        return other

    def with_text(self, text: str) -> Draft:
        """The draft of a text, which reads only what is not at the beginning of this one."""
        draft = self.fork()
        if text != self.text:
            draft._cut(self._tokens_shared_with(text))
            draft._feed(text[len(draft.text) :])
        return draft

    def write(self, seed: int, **settings: Any) -> Generator[int]:
        """Let the model go on, with the settings of `LanguageModel.stream`; yields how many tokens it has
        written after each of them. Closing it ends the computation."""
        made = 0
        pieces = self.session.sample(seed=seed, **settings)
        try:
            for piece in pieces:
                level, shown = surprisal_level(-piece.logprob / math.log(2)), printable(piece.text)
                if shown.startswith("\n") and self.text.endswith(_RETURN) and self.levels[-1] != NOT_WRITTEN:
                    # A line's end of Windows, whose parts came one after the other, is shown as a line's end.
                    self.text, self.levels = self.text[:-1], self.levels[:-1]
                if piece.token >= 0:
                    self._starts.append(len(self.text))
                    made += 1
                self._add(shown, str(level))
                yield made
        finally:
            pieces.close()
            # A stop string takes tokens back; what is left of the last is read anew.
            del self._starts[len(self.session) :]
            self._starts += [len(self.text)] * (len(self.session) - self.written)

    def alternatives(self, place: int, count: int = 10) -> Alternatives:
        """What could stand at a place of the text (in characters) instead of the token that does; at its
        end, what could come next."""
        number = self._token_at(place)
        before, at_end = self._session_before(number), number == self.written
        tokens = [(printable(name), token, p) for name, token, p in before.next(count)]
        start = len(self.text) if at_end else self._starts[number]
        return Alternatives(start, None if at_end else self.text[start : self._end(number)], tokens)

    def with_token(self, place: int, token: int) -> Draft:
        """The draft up to a place of the text, with this token there. Raises UserError if it is none that
        the model may write."""
        if not 0 <= token < self.model.tokenizer.vocab_size or token in self.model.never:
            raise UserError("the model has no such token.")
        draft = self.fork()
        draft._cut(self._token_at(place))
        chances = {other: p for _, other, p in draft.session.next(self.model.tokenizer.vocab_size)}
        text = self.model.text_after(draft.text[-4:], draft.session.tokens[1:], ())
        draft._starts.append(len(draft.text))
        draft.session.add(token)
        level = surprisal_level(-math.log2(max(chances[token], 1e-9)))
        draft._add(printable(text.add(token, last=False)), str(level))
        return draft

    def _add(self, text: str, level: str) -> None:
        self.text += text
        self.levels += level * len(text)

    def _feed(self, text: str) -> None:
        before = len(self.session)
        self.session.feed(restore_controls(self.model, text))
        read = np.array(self.session.tokens[1 + before :], np.int64)
        data = restore_controls(self.model, text).encode("utf-8", "replace")
        starts = token_starts(self.model.tokenizer, data, read).tolist()
        # From bytes to characters: those bytes count that begin one.
        begins = [at for at, byte in enumerate(data) if byte & 0xC0 != 0x80]
        characters = [len(self.text) + bisect_right(begins, at) - 1 for at in starts[: len(read)]]
        self._starts += characters + [len(self.text + text)] * (len(read) - len(characters))
        self._add(text, NOT_WRITTEN)

    def _cut(self, count: int) -> None:
        """Keep the first `count` tokens."""
        end = self._starts[count] if count < self.written else len(self.text)
        self.session.rewind(self.written - count)
        del self._starts[count:]
        self.text, self.levels = self.text[:end], self.levels[:end]

    def _tokens_shared_with(self, text: str) -> int:
        """How many tokens at the beginning are those of another text."""
        pairs = zip(self.text, text, strict=False)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(self.text), len(text)))
        count = self.written
        while count and self._end(count - 1) > shared:
            count -= 1
        if self.model.tokenizer.kind in ("char", "byte"):
            return count
        # A word that goes on is cut into other tokens, so it is read from its beginning.
        while count and self._end(count - 1) < len(text) and not text[self._end(count - 1)].isspace():
            count -= 1
            if text[self._starts[count] : self._starts[count] + 1].isspace():
                break
        return count

    def _token_at(self, place: int) -> int:
        """The number of the token at a place; the first of those that make up one character."""
        if place >= len(self.text):
            return self.written
        number = bisect_right(self._starts, max(place, 0)) - 1
        return bisect_left(self._starts, self._starts[number]) if number >= 0 else 0

    def _session_before(self, number: int) -> Any:
        session = self.session.fork()
        session.rewind(len(session) - number)
        return session

    def _end(self, number: int) -> int:
        """Where in the text a token ends."""
        return self._starts[number + 1] if number + 1 < self.written else len(self.text)


def restore_controls(model: LanguageModel, text: str) -> str:
    """`text` from the page as the model is to read it: what was made visible there is a control
    character again, unless the model knows the picture itself."""
    for picture in CONTROLS.keys() & set(text):
        if model.tokenizer.unk is None or model.tokenizer.unknown_in(picture):
            text = text.replace(picture, CONTROLS[picture])
    return text
