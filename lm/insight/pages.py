"""A long text traced page by page: each page begins with the state at the end of the one read before it.

>>> from lm.insight.pages import PagedText
>>> text = PagedText(lm.load("runs/hamlet"), open("hamlet.txt").read(), page_tokens=8000)
>>> text.trace(3).values(layer=0, name="h", unit=17)  # as if the whole text had been traced
"""

from __future__ import annotations

import threading

import numpy as np

from lm.config.settings import whole_number
from lm.errors import UserError
from lm.insight.spans import token_spans
from lm.insight.surprisal import encode_known
from lm.insight.trace import Start, Trace, read
from lm.language_model import LanguageModel, require_one_network

_LAST_LINES = 0.2  # the part of a page in which it may end early, at the end of a line


class PagedText:
    """A text and the states of a network at the borders of its pages, as far as it has been read.

    `borders` (1 + pages,) has the first token of each page, and the number of tokens. Raises UserError if the
    text is empty or entirely unknown to the model, if `page_tokens` is less than 1, and for models that
    cannot be traced.
    """

    def __init__(self, model: LanguageModel, text: str, page_tokens: int):
        require_one_network(model, "be traced")
        page_tokens = whole_number("page_tokens", page_tokens, 1)
        encoded, self.tokens = encode_known(model.tokenizer, text)
        self.model, self.text = model, encoded.decode()
        self.starts, self.ends = token_spans(model.tokenizer, encoded, self.tokens)
        self.borders = _borders(self.text, self.starts, self.ends, page_tokens)
        self._after: list[Start] = []  # the state after each page, in reading order
        self._lock = threading.Lock()

    @property
    def pages(self) -> int:
        """The number of pages."""
        return len(self.borders) - 1

    def characters(self, page: int) -> tuple[int, int]:
        """The first character of a page, and the end of its last."""
        first, last = (
            self.starts[border] if 0 < border < len(self.tokens) else len(self.text) * (border > 0)
            for border in self.borders[page : page + 2]
        )
        return int(first), int(last)

    def trace(self, page: int) -> Trace:
        """The trace of a page. Pages that are read before it are read now, unless they have been."""
        if not 0 <= page < self.pages:
            raise UserError(f"page must be between 1 and {self.pages}, got {page + 1}.")
        with self._lock:
            target = self.model.direction.position(page, self.pages)
            for order in range(len(self._after), target):
                self._read(order)
            hidden = self._read(target)
        first, end = self.borders[page : page + 2]
        begin, stop = self.characters(page)
        return Trace(
            model=self.model,
            text=self.text[begin:stop],
            tokens=self.tokens[first:end],
            starts=self.starts[first:end] - begin,
            ends=self.ends[first:end] - begin,
            hidden=hidden,
            start=self._after[target - 1] if target else None,
        )

    def _read(self, order: int) -> list[np.ndarray]:
        """Read the page at a position in reading order: h (1 + tokens, units) of each layer."""
        page = self.model.direction.position(order, self.pages)
        tokens = self.model.direction.reorder(self.tokens[self.borders[page] : self.borders[page + 1]])
        if order == 0:
            ids = np.concatenate([[self.model.start_token], tokens]).astype(np.int64)
            hidden, states = read(self.model.network, ids)
        else:
            before = self._after[order - 1].states
            hidden, states = read(self.model.network, tokens.astype(np.int64), before)
            first = [state[0][0].cpu().numpy() for state in before]
            hidden = [np.vstack(rows) for rows in zip(first, hidden, strict=True)]
        if order == len(self._after):
            self._after.append(Start(int(tokens[-1]), states))
        return hidden


def _borders(text: str, starts: np.ndarray, ends: np.ndarray, page_tokens: int) -> list[int]:
    """The first token of each page and the number of tokens. Pages end with a line where they can, and never
    within a character."""
    # A line break is the last character of a token or, for tokenizers that skip whitespace, follows it.
    parts = zip(ends.tolist(), [*starts[1:].tolist(), len(text)], strict=True)
    lines = np.flatnonzero(["\n" in text[max(end - 1, 0) : following] for end, following in parts]) + 1
    borders, count = [0], len(starts)
    while count - borders[-1] > page_tokens:
        end = borders[-1] + page_tokens
        before = int(np.searchsorted(lines, end, side="right"))  # lines that end by then
        line = int(lines[before - 1]) if before else 0
        border = line if line > end - _LAST_LINES * page_tokens else end
        while border < count and starts[border] == starts[border - 1]:
            border += 1
        borders.append(border)
    return [*borders, count] if borders[-1] < count else borders
