"""From the tokens of a stream to the text that may be shown: whole characters, and no stop strings."""

from __future__ import annotations

from lm.tokenization.tokenizer import Tokenizer


class Text:
    """The text of one stream, shown as soon as it can be no part of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], after: list[int]):
        self._end, self._stream = tokenizer.end, tokenizer.decode_stream(after)
        self._stop = tuple(filter(None, stop))
        self._held = ""
        self.ended = False

    def add(self, token: int, last: bool) -> str:
        """The text that may be shown after `token`."""
        text = self._held + self._stream.step(token)
        found = min((at for s in self._stop if (at := text.find(s)) >= 0), default=-1)
        if found >= 0:
            self.ended, self._held = True, ""
            return text[:found]
        self.ended = last or token == self._end
        keep = 0 if self.ended else self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, if the stream has come to an end by itself."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string could begin."""
        longest = max((len(s) for s in self._stop), default=0)
        for length in range(min(len(text), longest - 1), 0, -1):
            if any(s.startswith(text[-length:]) for s in self._stop):
                return length
        return 0


class TextBackward:
    """The text of one stream of a backward model, which grows at its beginning and ends before the
    tokens `before`."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], before: list[int]):
        self._tokenizer, self._before = tokenizer, before
        self._stop = tuple(filter(None, stop))
        # So many tokens hold a stop string, and the rest of a character behind it.
        self._reach = max((len(s.encode()) for s in self._stop), default=0) + 4
        self.tokens: list[int] = []  # in the order in which they are written
        self.logprobs: list[float] = []
        self.ended = False

    def add(self, token: int, logprob: float) -> None:
        """Put `token` before the text."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        newest = self._tokenizer.decode(self.tokens[: -self._reach - 1 : -1]) if self._stop else ""
        self.ended = token == self._tokenizer.end or any(s in newest for s in self._stop)

    def text(self) -> str:
        """The text in the order of reading, from the last stop string on."""
        decode = self._tokenizer.decode
        whole = decode([*self.tokens[::-1], *self._before]).removesuffix(decode(self._before))
        return whole[max((whole.rfind(s) + len(s) for s in self._stop if s in whole), default=0) :]
