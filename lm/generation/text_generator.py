"""TextGenerator: continues texts with a decoder and a tokenizer."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Self

from lm.config.settings import shown
from lm.console.escaping import printable
from lm.console.invocation import command
from lm.errors import UserError
from lm.generation.beam import beam_search
from lm.generation.constraints import Banned, Constraint, Match, NoRepeat, OneOf, Vocabulary
from lm.generation.decoder import Decoder
from lm.generation.detokenize import BackwardDetokenizer, Detokenizer, ForwardDetokenizer
from lm.generation.request import Request, check_unknown
from lm.generation.scheduler import Scheduler
from lm.generation.stop_strings import StopStrings
from lm.generation.stream import Stream, Token
from lm.model.direction import Direction
from lm.tokenization.special_tokens import start_token, suppressed_tokens
from lm.tokenization.text_stream import TextStream
from lm.tokenization.tokenizer import Tokenizer, describe_unknown

_CONTEXT = 8  # tokens of the prompt that can affect how the next token is written


@dataclass(frozen=True)
class Piece:
    """One generated token, its log-probability in nats, and the text that it adds."""

    text: str  # displayable now; empty while it may be part of a character or of a stop string
    token: int  # -1: no token, only text that was held back
    logprob: float  # nats
    alternatives: tuple[tuple[str, float], ...]  # the most likely tokens with their log-probabilities


@dataclass(frozen=True)
class Completion:
    """One generated text, with its tokens and their log-probabilities in nats."""

    text: str
    tokens: list[int]  # in text order, as are the log-probabilities
    logprobs: list[float]  # nats
    seed: int | None  # None: found by beam search


class Pieces:
    """An iterator over the (index, Piece) of several texts, which are generated while it is consumed."""

    def __init__(
        self, generator: TextGenerator, streams: Sequence[Stream], detokenizers: Sequence[Detokenizer]
    ):
        self._streams, self._detokenizers = streams, detokenizers
        self._decoded = generator.decode(streams, detokenizers)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Piece]:
        index, _, piece = next(self._decoded)
        return index, piece

    def has_ended(self, index: int) -> bool:
        """Whether a text has no more pieces. Sometimes this is known only when all texts have ended."""
        return self._detokenizers[index].ended

    def cancel(self) -> None:
        """End the texts, from any thread, whatever is being computed. A thread that waits for a piece of
        them stops waiting."""
        for stream in self._streams:
            stream.end()

    def close(self) -> None:
        """End the texts, from the thread that consumes them."""
        self._decoded.close()


class Continuation(Iterator[Piece]):
    """An iterator over the pieces of one text, which is generated while it is consumed."""

    def __init__(self, pieces: Pieces, prompt: str):
        self._pieces, self._prompt = pieces, prompt

    def __next__(self) -> Piece:
        return next(self._pieces)[1]

    def close(self) -> None:
        """End the text."""
        self._pieces.close()

    def _ipython_display_(self) -> None:
        """Print prompt and text as the output of a notebook's cell."""
        print(printable(self._prompt), end="", flush=True)
        for piece in self:
            print(printable(piece.text), end="", flush=True)


class TextGenerator:
    """Turns prompts into tokens, lets a decoder generate and turns its tokens into text.

    `direction` is that of the decoder's network. A text starts after `start_token`, and
    `suppressed_tokens` are never generated. Raises UserError if that leaves no tokens.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, direction: Direction, *, single_document: bool
    ):
        self.decoder, self.tokenizer, self.direction = decoder, tokenizer, direction
        self.start_token = start_token(tokenizer, single_document)
        self.suppressed_tokens = suppressed_tokens(tokenizer, single_document)
        if len(self.suppressed_tokens) == tokenizer.vocab_size:
            raise UserError("the vocabulary of this model has no tokens to write with: train another one.")
        self.scheduler = Scheduler(decoder, tokenizer.vocab_size, self.suppressed_tokens)

    def require_forward(self) -> None:
        """Raise UserError for a backward model, which cannot continue a text."""
        if self.direction is Direction.BACKWARD:
            raise UserError(
                "this model reads right to left and cannot continue a text: use"
                f" `{command('generate')}` to generate what precedes the prompt."
            )

    def encode(
        self, text: str | Sequence[int], unknown: str = "replace", *, continues: bool = False
    ) -> list[int]:
        """The tokens of `text`, which the start token precedes, unless it `continues` a text.

        What the vocabulary lacks becomes <unk> ("replace"), is left out ("skip") or raises UserError
        ("error"). A text given as token ids is taken as it is, except for an <eos> that it starts with: see
        `starts_explicitly`. Raises UserError for ids outside the vocabulary.
        """
        check_unknown(unknown)
        text = text_or_ids(text)
        if not isinstance(text, str):
            last = self.tokenizer.vocab_size - 1
            if wrong := [token for token in text if not 0 <= token <= last]:
                raise UserError(f"token ids must be between 0 and {last:,}, got {shown(wrong[0])}.")
            explicit = self.starts_explicitly(text)
            return self.direction.reorder(self.direction.reorder(text)[explicit:])
        if unknown == "error" and (missing := describe_unknown(self.tokenizer, text)):
            raise UserError(
                f"the model does not know {missing}: leave them out, or choose --unknown skip or replace."
            )
        skip = unknown == "skip"
        return self.tokenizer.encode(text, skip_unknown=skip, continues=continues).tolist()

    def starts_explicitly(self, text: str | Sequence[int]) -> bool:
        """Whether a text is given as token ids of which the first in reading order is <eos>.

        Other programs begin a text with this token. Here, it is read as the start of a text, whatever the
        model's start token is: a model trained on a single document has never seen <eos>.
        """
        first = [] if isinstance(text, str) else list(self.direction.reorder(text)[:1])
        return first == [self.tokenizer.eos]

    def text_of(self, prompt: str | Sequence[int]) -> str:
        """A prompt, which may be given as token ids, as text."""
        return prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)

    def stream(
        self, prompts: Iterable[str | Sequence[int]], seeds: Sequence[int], request: Request
    ) -> Pieces:
        """Continue each of `prompts` with its seed, all in one batch.

        A prompt is a text or a sequence of token ids, see `encode`. The next one is taken when everything is
        ready to continue those before it: an iterator can raise an exception to stop the preparation.
        Raises UserError, before the first piece, for a request that is not valid.
        """
        streams, detokenizers = [], []
        comparable = map(text_or_ids, prompts)
        for prompt, group in groupby(zip(comparable, seeds, strict=True), key=operator.itemgetter(0)):
            tokens, text = self.encode(prompt, request.unknown), self.text_of(prompt)
            constraints = self.constraints(text, tokens, request)
            past = self.direction.reorder(tokens)  # without the start token, which is not part of the text
            stream = self.new_stream(self._to_read(tokens), 0, constraints, request, past=past)
            for _, seed in group:  # of one prompt that is continued several times
                streams.append(stream.fork(seed))
                detokenizers.append(self.detokenizer(text, tokens, request.stop))
        return Pieces(self, streams, detokenizers)

    def generate(
        self, prompts: Sequence[str | Sequence[int]], seeds: Sequence[int], request: Request
    ) -> list[Completion]:
        """The completions of `prompts`, each with its seed, generated in one batch."""
        pieces: list[list[Piece]] = [[] for _ in prompts]
        for index, piece in self.stream(prompts, seeds, request):
            pieces[index].append(piece)
        return [
            self._completion(
                "".join(piece.text for piece in sample),
                [piece.token for piece in sample if piece.token >= 0],
                [piece.logprob for piece in sample if piece.token >= 0],
                seed,
            )
            for sample, seed in zip(pieces, seeds, strict=True)
        ]

    def search(
        self,
        prompt: str | Sequence[int],
        beams: int,
        num_samples: int,
        length_penalty: float,
        request: Request,
    ) -> list[Completion]:
        """The `num_samples` best completions that a beam search finds, or fewer if there are no more. Their
        texts differ. Samplers do not apply."""
        encoded, prompt = self.encode(prompt, request.unknown), self.text_of(prompt)
        tokens = self._to_read(encoded)
        constraints = self.constraints(prompt, encoded, request)
        if size := request.sampling.no_repeat_ngram:
            constraints.append(NoRepeat(self.tokenizer.vocab_size, size, self.direction.reorder(encoded)))
        hypotheses = beam_search(
            self.decoder,
            tokens,
            max(beams, num_samples),
            request.max_new_tokens,
            length_penalty=length_penalty,
            end=self.tokenizer.end,
            suppressed=self.suppressed_tokens,
            bias=request.logit_bias or {},
            constraints=constraints,
            stop_strings=StopStrings(
                self.vocabulary,
                [self._bytes(string) for string in request.stop],
                self.direction,
                words=self.tokenizer.kind == "word",
                hides_space=self._hides_space(prompt, encoded),
            ),
        )
        completions: dict[str, Completion] = {}  # by text
        for best in hypotheses:
            detokenizer, text, count = self.detokenizer(prompt, encoded, request.stop), "", 0
            for count, token in enumerate(best.tokens, start=1):
                text += detokenizer.add(token, last=count == len(best.tokens))
                if detokenizer.ended:
                    break
            text += detokenizer.rest()
            if text not in completions:
                tokens, logprobs = best.tokens[:count], best.logprobs[:count]
                completions[text] = self._completion(text, tokens, logprobs, None)
        return list(completions.values())[:num_samples]

    def new_stream(
        self, tokens: list[int], seed: int, constraints: list[Constraint], request: Request, **more: Any
    ) -> Stream:
        """A stream that continues these tokens, in reading order; `more` as for `Scheduler.stream`."""
        return self.scheduler.stream(
            tokens,
            request.sampling,
            seed,
            request.max_new_tokens,
            alternatives=request.alternatives,
            bias=request.logit_bias,
            constraints=constraints,
            **more,
        )

    def detokenizer(self, prompt: str, tokens: Sequence[int], stop: Sequence[str] = ()) -> Detokenizer:
        """Turns the tokens generated after a prompt with these tokens into text."""
        kind = BackwardDetokenizer if self.direction is Direction.BACKWARD else ForwardDetokenizer
        return kind(self.tokenizer, stop, self._context(prompt, tokens))

    def text_stream(self, prompt: str, tokens: Sequence[int]) -> TextStream:
        """`detokenizer` without stop strings, for a forward model."""
        return self.tokenizer.decode_stream(self._context(prompt, tokens))

    def _context(self, prompt: str, tokens: Sequence[int]) -> list[int]:
        # Words are written with a space before them, unless the prompt already provides it.
        spaced = self.tokenizer.kind == "word" and self.direction.adjacent(prompt, 1).isspace()
        return [] if spaced else self.direction.adjacent(list(tokens), _CONTEXT)

    def _hides_space(self, prompt: str, tokens: Sequence[int]) -> bool:
        """Whether the text after a prompt with these tokens is written without the space that its first token
        adds."""
        is_beginning = self.direction is Direction.BACKWARD or not self._context(prompt, tokens)
        return is_beginning and self.tokenizer.hides_first_space

    def decode(
        self, streams: Sequence[Stream], detokenizers: Sequence[Detokenizer]
    ) -> Generator[tuple[int, Token | None, Piece]]:
        """Run `streams` until all have ended: (index, token, piece) for each token that they generate, and
        (index, None, piece) for text that was held back. Closing the generator ends the streams."""
        counts, name = [0] * len(streams), self.tokenizer.token_name
        with closing(self.scheduler.tokens(*streams)) as tokens:
            for index, token in tokens:
                stream, detokenizer = streams[index], detokenizers[index]
                if detokenizer.ended:
                    continue
                counts[index] += 1
                text = detokenizer.add(token.token, last=counts[index] == stream.limit)
                if detokenizer.ended:
                    stream.end()
                alternatives = tuple((name(other), logprob) for other, logprob in token.alternatives)
                yield index, token, Piece(text, token.token, token.logprob, alternatives)
        for index, detokenizer in enumerate(detokenizers):
            if rest := detokenizer.rest():
                yield index, None, Piece(rest, -1, 0.0, ())

    def constraints(self, prompt: str, tokens: Sequence[int], request: Request) -> list[Constraint]:
        """The constraints of a request on the text after a prompt with these tokens. They record what was
        generated: each text needs its own. Raises UserError if the request contradicts itself, or if the
        model cannot write any of the choices."""
        if request.match is not None and request.choices:
            raise UserError("a pattern and a list of choices contradict each other: use one of them.")
        if request.match is not None and self.direction is Direction.BACKWARD:
            raise UserError("a model that reads right to left cannot match a pattern: name choices instead.")
        constraints: list[Constraint] = []
        words, backward = self.tokenizer.kind == "word", self.direction is Direction.BACKWARD
        # Words are written with a space before them, the first one too. Other kinds can add one that is not
        # written.
        may_add_space = words or self._hides_space(prompt, tokens)
        if request.match is not None:
            constraints.append(Match(self.vocabulary, request.match, leading_space=may_add_space))
        if request.choices:
            choices = [*request.choices, *(f" {choice}" for choice in request.choices if may_add_space)]
            one_of = OneOf(self.vocabulary, [self._bytes(choice) for choice in choices])
            if not one_of.possible:
                lacking = describe_unknown(self.tokenizer, choices[0]) or repr(choices[0])
                raise UserError(f"the model has no tokens for {lacking}: name a choice that it can write.")
            constraints.append(one_of)
        if request.ban:
            if words:  # the space between prompt and text belongs to the word on its right
                prompt = f" {prompt.lstrip(' ')}" if backward else prompt.rstrip(" ")
            strings = [self._bytes(string) for string in request.ban]
            before = self._bytes(prompt)
            # A U+FFFD can be the first bytes of a character. The text has lost them; the tokens have not.
            if self.direction.adjacent(prompt, 1) == "\ufffd":
                pieces = self.vocabulary.pieces
                before = b"".join(pieces[token] or b"" for token in self.direction.reorder(tokens))
            constraints.append(Banned(self.vocabulary, strings, before))
        return constraints

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The bytes of every token, as the constraints need them."""
        tokenizer, pieces = self.tokenizer, []
        for token in range(tokenizer.vocab_size):
            silent = token in (tokenizer.unk, tokenizer.end)
            piece = b"" if silent else tokenizer.added_by(token)
            pieces.append(self.direction.reorder(piece) if piece else None)
        return Vocabulary(pieces)

    def _to_read(self, encoded: list[int]) -> list[int]:
        """What the network reads before it generates, for a prompt with these tokens."""
        return [self.start_token, *self.direction.reorder(encoded)]

    def _bytes(self, text: str) -> bytes:
        """The UTF-8 of a text in reading order."""
        return self.direction.reorder(text.encode("utf-8", "replace"))

    def _completion(
        self, text: str, tokens: list[int], logprobs: list[float], seed: int | None
    ) -> Completion:
        reorder = self.direction.reorder
        return Completion(text, reorder(tokens), reorder(logprobs), seed)


def text_or_ids(text: str | Iterable[int]) -> str | list[int]:
    """A text, or its token ids, which may be those of NumPy or torch or of an iterator, as a list."""
    try:
        return text if isinstance(text, str) else [operator.index(token) for token in text]
    except TypeError:
        raise UserError(f"a text must be a string or a list of token ids, got {text!r}.") from None
