"""Completions as OpenAI's clients expect them: what the model writes, as parts of an answer.

Nothing here knows of HTTP.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lm.language_model import LanguageModel, Piece
from lm.tokenization.positions import positions, token_starts

from .request import Asked, Refused

_LEAST_LOGPROB = -9999.0  # JSON knows no infinity


@dataclass(frozen=True)
class Entry:
    """One token as `logprobs` tells it."""

    token: str
    logprob: float  # nats
    likeliest: dict[str, float]
    offset: int  # the character of the answer's text at which it begins


@dataclass
class Part:
    """A part of one choice; with a finish_reason the last one."""

    index: int
    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    finish_reason: str | None = None


class Writing:
    """The answer to a request, written while `parts` is read. Raises Refused, or UserError of lm, at
    once for what this model cannot do."""

    def __init__(self, model: LanguageModel, asked: Asked):
        if model.backward:
            raise Refused(
                f"the model '{asked.model}' reads right to left and cannot go on with a text: choose another"
                " one, or use `lm generate`.", "model",
            )  # fmt: skip
        last = max(asked.settings["logit_bias"], default=0)
        if last >= model.tokenizer.vocab_size:
            known = f"this model has the tokens 0 to {model.tokenizer.vocab_size - 1:,}"
            raise Refused(f"'logit_bias': {known}, and {last} is none of them.", "logit_bias")
        self._model, self._asked = model, asked
        self._reads = [model.encode(prompt) for prompt in asked.prompts]
        self._choices = [
            _Choice(model, asked, number * asked.n + i, prompt, read)
            for number, (prompt, read) in enumerate(zip(asked.prompts, self._reads, strict=True))
            for i in range(asked.n)
        ]
        # As in LanguageModel.generate, each text has the seed after that of the one before.
        first = secrets.randbits(31) if asked.seed is None else asked.seed
        seeds = [first + i for i in range(len(self._choices))]
        prompts = [prompt for prompt in asked.prompts for _ in range(asked.n)]
        self._pieces: Iterator[tuple[int, Piece]] | None = None
        if asked.max_tokens:
            settings = {**asked.settings, "max_new_tokens": asked.max_tokens}
            self._pieces = model.stream_all(prompts, seeds, **settings)

    def parts(self) -> Iterator[Part]:
        """The parts of all choices as they are made. Closing it ends the computation."""
        asked = self._asked
        if asked.echo:
            for number, (prompt, read) in enumerate(zip(asked.prompts, self._reads, strict=True)):
                entries = _scored(self._model, prompt, read, asked.logprobs)
                for index in range(number * asked.n, (number + 1) * asked.n):
                    yield Part(index, prompt, entries)
        if self._pieces is not None:
            with closing(self._pieces):
                for number, piece in self._pieces:
                    yield self._choices[number].add(piece)
        for choice in self._choices:
            yield choice.end()

    def usage(self) -> dict[str, int]:
        """The tokens that were read and those that were written so far."""
        read, written = sum(map(len, self._reads)), sum(choice.count for choice in self._choices)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class _Choice:
    """One text that is written: its pieces become parts."""

    def __init__(self, model: LanguageModel, asked: Asked, index: int, prompt: str, read: list[int]):
        self._model, self._asked, self._index, self.count = model, asked, index, 0
        self._before = len(prompt) if asked.echo else 0
        self._text = model.text_after(prompt, read, ())  # what the tokens write, stop strings and all
        self._written = self._shown = 0  # characters
        self._last: int | None = None
        self._held: list[Entry] = []  # tokens whose text is not yet shown

    def add(self, piece: Piece) -> Part:
        """What one more piece shows."""
        self._shown += len(piece.text)
        if piece.token >= 0:  # else it holds nothing but text that was held back
            self.count, self._last = self.count + 1, piece.token
            if self._asked.logprobs is not None:
                name = self._model.tokenizer.token_name(piece.token)
                likeliest = _likeliest(name, piece.logprob, piece.alternatives)
                self._held.append(Entry(name, piece.logprob, likeliest, self._before + self._written))
            self._written += len(self._text.add(piece.token, last=False))
        entries = [entry for entry in self._held if entry.offset < self._before + self._shown]
        self._held = self._held[len(entries) :]
        return Part(self._index, piece.text, entries)

    def end(self) -> Part:
        """The end. Tokens that wrote nothing of the text, such as those of a stop string, are left out."""
        stopped = (
            self.count < self._asked.max_tokens
            or (self.count and self._last == self._model.tokenizer.end)
            or self._shown < self._written  # by a stop string in the very last token
        )
        return Part(self._index, finish_reason="stop" if stopped else "length")


def _scored(model: LanguageModel, prompt: str, read: list[int], count: int | None) -> list[Entry]:
    """The tokens of a prompt as the model finds them; none unless `logprobs` asks for them."""
    if count is None or not read:
        return []
    text = prompt.encode("utf-8", "replace")
    starts = token_starts(model.tokenizer, text, np.array(read))
    # Not strict: line ends of Windows may be one token, of two characters.
    offsets = positions(text, starts).offset.tolist() + [len(prompt)] * len(read)
    return [
        Entry(one.text, one.logprob, _likeliest(one.text, one.logprob, one.alternatives), offset)
        for one, offset in zip(model.score(prompt, alternatives=count), offsets, strict=False)
    ]


def _likeliest(name: str, logprob: float, others: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The likeliest tokens and the one that is there; of two of the same name, the likelier one."""
    likeliest: dict[str, float] = {}
    for other, value in others:
        likeliest.setdefault(other, value)
    return {**likeliest, name: logprob}


def merged(parts: Iterable[Part]) -> list[Part]:
    """One part of each choice for all that came of it, in the order of the choices."""
    by_index: dict[int, Part] = {}
    for part in parts:
        whole = by_index.setdefault(part.index, Part(part.index))
        whole.text += part.text
        whole.entries += part.entries
        whole.finish_reason = part.finish_reason or whole.finish_reason
    return [by_index[index] for index in sorted(by_index)]


class Envelope:
    """What all objects of one answer have in common."""

    def __init__(self, asked: Asked):
        self._asked = asked
        self._facts = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model,
        }

    def around(self, parts: Iterable[Part], **more: Any) -> dict[str, Any]:
        """The object that holds these parts."""
        return {**self._facts, "choices": [self._choice(part) for part in parts], **more}

    def _choice(self, part: Part) -> dict[str, Any]:
        logprobs = None
        if self._asked.logprobs is not None:
            logprobs = {
                "tokens": [entry.token for entry in part.entries],
                "token_logprobs": [max(_LEAST_LOGPROB, entry.logprob) for entry in part.entries],
                "top_logprobs": [
                    {name: max(_LEAST_LOGPROB, logprob) for name, logprob in entry.likeliest.items()}
                    for entry in part.entries
                ],
                "text_offset": [entry.offset for entry in part.entries],
            }
        return {
            "text": part.text,
            "index": part.index,
            "logprobs": logprobs,
            "finish_reason": part.finish_reason,
        }
