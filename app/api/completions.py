"""Completions as chunks and as OpenAI's response objects; independent of HTTP.

Chunks are JSON already: they are encoded where they are computed, in small steps, and what several choices
have in common only once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.generation.request import seeds_from
from lm.generation.text_generator import Piece, Pieces
from lm.language_model import LanguageModel
from lm.tokenization.positions import positions, token_starts

from .fair_lock import FairLock
from .request import CompletionRequest, Prompt, RequestError
from .responses import encode_json

_COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")  # of `logprobs`
_CONSTRAINTS = ("match", "ban", "no_repeat_ngram")  # the parameters that can exclude every token
_MIN_LOGPROB = -9999.0  # JSON has no infinity
_SCORED_AT_ONCE = 256  # tokens
_LONG = 1000  # bytes of JSON that choices share rather than copy
_scoring = FairLock()  # held by the thread that scores: several would slow down those that generate


@dataclass(frozen=True)
class TokenLogprob:
    """One token in `logprobs`."""

    token: str
    logprob: float  # nats
    top: dict[str, float]  # the most likely tokens and this one
    offset: int  # of its first character in the text of the choice


@dataclass(frozen=True)
class Part:
    """A piece of a text as JSON: the characters between the quotes, and for the tokens with scores, the
    elements of each list in `logprobs`."""

    text: bytes
    num_tokens: int
    columns: tuple[bytes, ...]  # in the order of _COLUMNS

    @classmethod
    def of(cls, text: str, tokens: Sequence[TokenLogprob] = ()) -> Part:
        """Encode a piece of a text."""
        columns: tuple[list[Any], ...] = ()
        if tokens:
            columns = (
                [token.token for token in tokens],
                [max(_MIN_LOGPROB, token.logprob) for token in tokens],
                [{name: max(_MIN_LOGPROB, p) for name, p in token.top.items()} for token in tokens],
                [token.offset for token in tokens],
            )
        encoded = tuple(encode_json(column)[1:-1] for column in columns)
        return cls(encode_json(text)[1:-1], len(tokens), encoded)


@dataclass(frozen=True)
class Chunk:
    """A piece of one choice; the last one has a finish_reason."""

    index: int
    part: Part
    finish_reason: str | None = None

    @property
    def size(self) -> int:
        """How much work it is to send it, in tokens."""
        return max(1, self.part.num_tokens)


class CompletionStream:
    """The choices of one request, generated while `chunks` is iterated over.

    `pause` is called between the steps of the preparation, none of which takes long; it may raise an
    exception. Raises RequestError, or UserError from lm, for requests that this model cannot serve.
    """

    def __init__(self, model: LanguageModel, request: CompletionRequest, pause: Callable[[], None]):
        if model.backward:
            raise RequestError(
                f"the model '{request.model}' reads right to left and cannot continue a text; use a forward"
                " model, or `lm generate`.",
                "model",
            )
        vocab_size = model.tokenizer.vocab_size
        largest = max(request.settings["logit_bias"], default=0)
        if largest >= vocab_size:
            raise RequestError(
                f"token ids in 'logit_bias' must be between 0 and {vocab_size - 1:,}, got {largest}.",
                "logit_bias",
            )
        self._model, self._request, self._canceled = model, request, False
        self._prompts = []
        for prompt in request.prompts:
            pause()
            self._prompts.append(_Prompt(model, prompt, complete=not request.max_tokens))
        self._choices = [
            _Choice(model, request, number * request.n + i, prompt)
            for number, prompt in enumerate(self._prompts)
            for i in range(request.n)
        ]
        # Choice i has the seed `seed + i`, as sample i of LanguageModel.generate does.
        seeds = seeds_from(request.seed, len(self._choices))
        self._pieces: Pieces | None = None
        if request.max_tokens:
            settings = {**request.settings, "max_new_tokens": request.max_tokens}
            with self._naming_the_parameter():
                self._pieces = model.stream_all(self._paced_prompts(pause), seeds, **settings)

    def chunks(self) -> Generator[Chunk]:
        """The chunks of all choices as they are generated. Closing it stops the computation."""
        request = self._request
        if request.echo:
            for number, prompt in enumerate(self._prompts):
                for part in prompt.parts(request.logprobs, lambda: self._canceled):
                    for index in range(number * request.n, (number + 1) * request.n):
                        yield Chunk(index, part)
        unfinished = dict(enumerate(self._choices))
        if self._pieces is not None:
            with self._naming_the_parameter(), closing(self._pieces):
                for index, piece in self._pieces:
                    yield self._choices[index].add(piece)
                    if self._pieces.has_ended(index):
                        yield unfinished.pop(index).finish()
        for choice in unfinished.values():
            yield choice.finish()

    @contextmanager
    def _naming_the_parameter(self) -> Iterator[None]:
        """Turn a UserError into a RequestError about the first of _CONSTRAINTS that the request has."""
        try:
            yield
        except UserError as error:
            param = next((name for name in _CONSTRAINTS if self._request.settings.get(name)), None)
            raise RequestError(str(error), param) from error

    def _paced_prompts(self, pause: Callable[[], None]) -> Iterator[Prompt]:
        """The prompt of each choice."""
        for prompt in self._request.prompts:
            for _ in range(self._request.n):
                pause()
                yield prompt

    def cancel(self) -> None:
        """Stop the computation, from any thread."""
        self._canceled = True
        if self._pieces is not None:
            self._pieces.cancel()

    def usage(self) -> dict[str, int]:
        """The tokens read and generated so far."""
        prompt = sum(prompt.num_tokens for prompt in self._prompts)
        completion = sum(choice.num_tokens for choice in self._choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


class _Prompt:
    """A prompt as text and as tokens. `complete`: no generated token will complete its last character."""

    def __init__(self, model: LanguageModel, given: Prompt, complete: bool):
        self._model, self._given = model, given
        try:
            self.tokens = model.generator.encode(given)
        except UserError as error:
            raise RequestError(f"'prompt' cannot be read: {error}", "prompt") from error
        if isinstance(given, str):
            self.text, self.num_tokens = given, len(self.tokens)
        else:
            stream = model.tokenizer.decode_stream()
            steps = [(stream.step(token), stream.offset) for token in given]
            self.text = "".join(text for text, _ in steps) + (stream.rest() if complete else "")
            self._offsets, self.num_tokens = [offset for _, offset in steps], len(given)

    def parts(self, alternatives: int | None, is_canceled: Callable[[], bool]) -> Iterator[Part]:
        """The text, in parts of some hundred tokens with their scores, unless `alternatives` is None. Once
        `is_canceled`, no more are computed."""
        start, tokens = 0, list[TokenLogprob]()
        if alternatives is not None:
            for following in _slices(self._logprobs(alternatives), is_canceled):
                if tokens:
                    end = following[0].offset
                    yield Part.of(self.text[start:end], tokens)
                    start = end
                tokens = following
        yield Part.of(self.text[start:], tokens)

    def _logprobs(self, alternatives: int) -> Iterator[TokenLogprob]:
        """The score of each token."""
        scores = self._model.stream_scores(self._given, alternatives=alternatives)
        for score, offset in zip(scores, self._token_offsets(), strict=True):
            top = _top_logprobs(score.text, score.logprob, score.alternatives)
            yield TokenLogprob(score.text, score.logprob, top, offset)

    def _token_offsets(self) -> list[int]:
        """The position of each token in the text."""
        if not isinstance(self._given, str):
            return self._offsets
        text = self._given.encode("utf-8", "replace")
        offsets: list[int] = positions(
            text, token_starts(self._model.tokenizer, text, np.array(self.tokens))
        ).offset.tolist()
        return offsets


class _Choice:
    """Turns the generated pieces of one choice into chunks."""

    def __init__(self, model: LanguageModel, request: CompletionRequest, index: int, prompt: _Prompt):
        self._model, self._request, self._index, self.num_tokens = model, request, index, 0
        self._start = len(prompt.text) if request.echo else 0
        self._text = model.generator.text_stream(prompt.text, prompt.tokens)  # a stop string included
        self._sent = 0  # characters
        self._last_token: int | None = None
        self._pending: list[TokenLogprob] = []  # tokens whose text has not been sent yet

    def add(self, piece: Piece) -> Chunk:
        """The chunk for one more piece."""
        self._sent += len(piece.text)
        if piece.token >= 0:  # else the piece is text that was held back until it could not be a stop string
            self.num_tokens, self._last_token = self.num_tokens + 1, piece.token
            self._text.step(piece.token)
            if self._request.logprobs is not None:
                name = self._model.tokenizer.token_name(piece.token)
                top = _top_logprobs(name, piece.logprob, piece.alternatives)
                offset = self._start + self._text.offset
                self._pending.append(TokenLogprob(name, piece.logprob, top, offset))
        sent = [token for token in self._pending if token.offset < self._start + self._sent]
        self._pending = self._pending[len(sent) :]
        return Chunk(self._index, Part.of(piece.text, sent))

    def finish(self) -> Chunk:
        """The last chunk, with the tokens that wrote nothing: those of a stop string, <eos>, and the first
        bytes of a character. They are at the end of the text."""
        stopped = (
            self.num_tokens < self._request.max_tokens
            or (self.num_tokens and self._last_token == self._model.tokenizer.end)
            or self._sent < self._text.length  # a stop string in the very last token
        )
        end = self._start + self._sent
        unsent = [replace(token, offset=min(token.offset, end)) for token in self._pending]
        return Chunk(self._index, Part.of("", unsent), "stop" if stopped else "length")


def _slices(
    logprobs: Iterator[TokenLogprob], is_canceled: Callable[[], bool]
) -> Iterator[list[TokenLogprob]]:
    """The same in lists, until the request is canceled. Those of several requests are computed in turn."""
    while True:
        with _scoring:
            some = [] if is_canceled() else list(islice(logprobs, _SCORED_AT_ONCE))
        if not some:
            return
        yield some


def _top_logprobs(name: str, logprob: float, others: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The most likely tokens and the chosen one; of two with the same name, the more likely one."""
    top: dict[str, float] = {}
    for other, value in (*others, (name, logprob)):
        top.setdefault(other, value)
    return top


class _Joined:
    """JSON with a separator between what is added. Long parts are not copied."""

    def __init__(self, separator: bytes):
        self._separator, self._next = separator, b""
        self._pieces: list[bytes | bytearray] = [bytearray()]

    def __iter__(self) -> Iterator[bytes | bytearray]:
        return iter(self._pieces)

    def add(self, part: bytes) -> None:
        """Append a part."""
        self._pieces[-1] += self._next
        if len(part) < _LONG:
            self._pieces[-1] += part
        else:
            self._pieces += [part, bytearray()]
        self._next = self._separator


class _MergedChoice:
    """The chunks of one choice as an object in OpenAI's format."""

    def __init__(self, with_logprobs: bool):
        self._text = _Joined(b"")
        self._columns = {name: _Joined(b",") for name in _COLUMNS} if with_logprobs else None
        self._finish_reason: str | None = None
        self.is_empty = True  # says nothing new in a stream

    def add(self, chunk: Chunk) -> None:
        """Append a chunk."""
        part = chunk.part
        self._text.add(part.text)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if self._columns and part.num_tokens:
            for column, elements in zip(self._columns.values(), part.columns, strict=True):
                column.add(elements)
        self.is_empty &= not (part.text or part.num_tokens or chunk.finish_reason)

    def json(self, index: int) -> Iterator[bytes | bytearray]:
        """The object in pieces."""
        yield b'{"text":"'
        yield from self._text
        yield b'","index":%d,"logprobs":' % index
        if self._columns is None:
            yield b"null"
        else:
            for number, (name, column) in enumerate(self._columns.items()):
                yield b'%s"%s":[' % (b"," if number else b"{", name.encode())
                yield from column
                yield b"]"
            yield b"}"
        yield b',"finish_reason":%s}' % encode_json(self._finish_reason)


class Choices:
    """Chunks, merged into one object per choice in OpenAI's format. An object is JSON in pieces, which are
    long for a long text and may belong to other choices, too."""

    def __init__(self, with_logprobs: bool):
        self._with_logprobs = with_logprobs
        self._choices: dict[int, _MergedChoice] = {}

    def add(self, chunk: Chunk) -> None:
        """Append a chunk to its choice."""
        if chunk.index not in self._choices:
            self._choices[chunk.index] = _MergedChoice(self._with_logprobs)
        self._choices[chunk.index].add(chunk)

    def objects(self) -> Iterator[Iterator[bytes | bytearray]]:
        """The choices, in order, without those that say nothing."""
        for index, choice in sorted(self._choices.items()):
            if not choice.is_empty:
                yield choice.json(index)


class ResponseBuilder:
    """Builds the response objects of one request, which share an id and a creation time."""

    def __init__(self, request: CompletionRequest):
        self._with_logprobs = request.logprobs is not None
        common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
            "choices": [],
        }
        self._begin = encode_json(common).removesuffix(b"]}")

    def choices(self, chunks: Iterable[Chunk] = ()) -> Choices:
        """The choices of a response, so far with these chunks."""
        choices = Choices(self._with_logprobs)
        for chunk in chunks:
            choices.add(chunk)
        return choices

    def build(
        self, choices: Iterable[Iterable[bytes | bytearray]], **fields: Any
    ) -> Iterator[bytes | bytearray]:
        """A response object with these choices, as JSON in pieces."""
        yield self._begin
        for number, pieces in enumerate(choices):
            yield b"," * (number > 0)
            yield from pieces
        yield b"]"
        for name, value in fields.items():
            yield b"," + encode_json({name: value})[1:-1]
        yield b"}"
