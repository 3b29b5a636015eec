"""Completions as chunks and as OpenAI's response objects; independent of HTTP."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.generation.request import seed_or_random
from lm.generation.text_generator import Piece, Pieces
from lm.language_model import LanguageModel
from lm.tokenization.positions import positions, token_starts

from .request import CompletionRequest, Prompt, RequestError

_MIN_LOGPROB = -9999.0  # JSON has no infinity
_SCORED_AT_ONCE = 256  # tokens
_scoring = threading.Lock()  # held by the thread that scores: several would slow down those that generate


@dataclass(frozen=True)
class TokenLogprob:
    """One token in `logprobs`."""

    token: str
    logprob: float  # nats
    top: dict[str, float]  # the most likely tokens and this one
    offset: int  # of its first character in the text of the choice


@dataclass
class Chunk:
    """A piece of one choice; the last one has a finish_reason."""

    index: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None


class CompletionStream:
    """The choices of one request, generated while `chunks` is iterated over.

    Raises RequestError, or UserError from lm, for requests that this model cannot serve.
    """

    def __init__(self, model: LanguageModel, request: CompletionRequest):
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
        self._model, self._request = model, request
        self._prompts = [
            _Prompt(model, prompt, complete=not request.max_tokens) for prompt in request.prompts
        ]
        self._choices = [
            _Choice(model, request, number * request.n + i, prompt)
            for number, prompt in enumerate(self._prompts)
            for i in range(request.n)
        ]
        # Choice i has the seed `seed + i`, as sample i of LanguageModel.generate does.
        first = seed_or_random(request.seed)
        seeds = [first + i for i in range(len(self._choices))]
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        self._pieces: Pieces | None = None
        if request.max_tokens:
            settings = {**request.settings, "max_new_tokens": request.max_tokens}
            self._pieces = model.stream_all(prompts, seeds, **settings)

    def chunks(self) -> Generator[Chunk]:
        """The chunks of all choices as they are generated. Closing it stops the computation."""
        request = self._request
        if request.echo:
            for number, prompt in enumerate(self._prompts):
                for text, logprobs in prompt.parts(request.logprobs):
                    for index in range(number * request.n, (number + 1) * request.n):
                        yield Chunk(index, text, logprobs)
        if self._pieces is not None:
            with closing(self._pieces):
                for index, piece in self._pieces:
                    yield self._choices[index].add(piece)
        for choice in self._choices:
            yield choice.finish()

    def cancel(self) -> None:
        """Stop the computation, from any thread."""
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

    def parts(self, alternatives: int | None) -> Iterator[tuple[str, list[TokenLogprob]]]:
        """The text, in parts of some hundred tokens with their scores, unless `alternatives` is None."""
        start, tokens = 0, list[TokenLogprob]()
        if alternatives is not None:
            for following in _slices(self._logprobs(alternatives)):
                if tokens:
                    end = following[0].offset
                    yield self.text[start:end], tokens
                    start = end
                tokens = following
        yield self.text[start:], tokens

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
        return Chunk(self._index, piece.text, sent)

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
        return Chunk(self._index, logprobs=unsent, finish_reason="stop" if stopped else "length")


def _slices(logprobs: Iterator[TokenLogprob]) -> Iterator[list[TokenLogprob]]:
    """The same in lists. Those of several requests are computed in turn."""
    while True:
        with _scoring:
            some = list(islice(logprobs, _SCORED_AT_ONCE))
        if not some:
            return
        yield some


def _top_logprobs(name: str, logprob: float, others: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The most likely tokens and the chosen one; of two with the same name, the more likely one."""
    top: dict[str, float] = {}
    for other, value in (*others, (name, logprob)):
        top.setdefault(other, value)
    return top


class Choices:
    """Chunks, merged into one object per choice in OpenAI's format.

    Log-probabilities are collected in columns. As millions of small objects, they would keep Python's garbage
    collector, and thus the whole server, busy for seconds.
    """

    def __init__(self, with_logprobs: bool):
        self._with_logprobs = with_logprobs
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Append chunks to their choices."""
        for chunk in chunks:
            if chunk.index not in self._choices:
                self._choices[chunk.index] = self._new_choice(chunk.index)
            choice = self._choices[chunk.index]
            choice["text"].append(chunk.text)
            choice["finish_reason"] = chunk.finish_reason or choice["finish_reason"]
            for token in chunk.logprobs:
                columns = choice["logprobs"]
                columns["tokens"].append(token.token)
                columns["token_logprobs"].append(max(_MIN_LOGPROB, token.logprob))
                columns["top_logprobs"].append({n: max(_MIN_LOGPROB, p) for n, p in token.top.items()})
                columns["text_offset"].append(token.offset)

    def objects(self) -> list[dict[str, Any]]:
        """The choices, in order."""
        return [{**choice, "text": "".join(choice["text"])} for _, choice in sorted(self._choices.items())]

    def _new_choice(self, index: int) -> dict[str, Any]:
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        logprobs: dict[str, list[Any]] | None = {name: [] for name in names} if self._with_logprobs else None
        return {"text": [], "index": index, "logprobs": logprobs, "finish_reason": None}


def is_empty(choice: dict[str, Any]) -> bool:
    """Whether an object of `Choices` says nothing new in a stream."""
    return not (choice["text"] or choice["finish_reason"] or (choice["logprobs"] or {}).get("tokens"))


class ResponseBuilder:
    """Builds the response objects of one request, which share an id and a creation time."""

    def __init__(self, request: CompletionRequest):
        self._with_logprobs = request.logprobs is not None
        self._common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

    def choices(self, chunks: Iterable[Chunk] = ()) -> Choices:
        """The choices of a response, so far with these chunks."""
        choices = Choices(self._with_logprobs)
        choices.add(chunks)
        return choices

    def build(self, choices: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """A response object with these choices."""
        return {**self._common, "choices": choices, **fields}
