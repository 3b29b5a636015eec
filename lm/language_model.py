"""LanguageModel: a network with its tokenizer, the one object that everyone asks.

The training loop, generate.py, the web page, the API and a notebook all use these few methods.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lm.errors import UserError
from lm.evaluation.losses import Score, score_tokens
from lm.generation.beam import beam_search
from lm.generation.constraints import Banned, Constraint, Match, NoRepeat, OneOf, Vocabulary
from lm.generation.decoder import Decoder
from lm.generation.detokenize import Text, TextBackward
from lm.generation.ensemble import Ensemble
from lm.generation.request import Request
from lm.generation.scheduler import Scheduler, Stream, Token
from lm.invocation import command
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer, describe_unknown

if TYPE_CHECKING:
    from lm.session import Session

_LOOK_BACK = 8  # tokens of the prompt that may matter for how the next one is written


@dataclass(frozen=True)
class Piece:
    """What one decoded token adds to the text."""

    text: str  # what can be shown now; empty while a character or a stop string may be half done
    token: int
    logprob: float  # nats
    alternatives: tuple[tuple[str, float], ...]  # the likeliest tokens with their logprobs


@dataclass(frozen=True)
class Completion:
    """A whole sample."""

    text: str
    tokens: list[int]
    logprobs: list[float]  # nats
    seed: int | None  # None: of a beam search


class LanguageModel:
    """A trained network and its tokenizer. `facts` is what config.json tells of its training.

    `start` is the token after which a text begins. A `backward` model reads right to left: what it
    writes leads up to the prompt, and it begins at the end.
    """

    def __init__(
        self,
        network: RecurrentLM,
        tokenizer: Tokenizer,
        facts: dict[str, Any] | None = None,
        precision: str = "fp32",
        decoder: Decoder | Ensemble | None = None,
    ):
        self.network, self.tokenizer, self.facts = network, tokenizer, facts or {}
        self.device = network.embedding.weight.device
        self.backward = network.config.backward
        self.decoder = decoder or Decoder(network, precision)
        # A document begins after the end of another. A model of one single document has never
        # seen such an end: it begins at a line's end, the next best place, and never ends.
        self.start, self.never = tokenizer.eos, [] if tokenizer.unk is None else [tokenizer.unk]
        if self.facts.get("trained_on", {}).get("documents") == 1:
            newline = tokenizer.encode("\n")
            if len(newline) == 1 and newline[0] != tokenizer.unk:
                self.start = int(newline[0])
            if tokenizer.end is not None:
                self.never.append(tokenizer.end)
        self.streams = Scheduler(self.decoder, tokenizer.vocab_size, self.never)

    def mixed_with(self, others: Sequence[tuple[LanguageModel, float]]) -> LanguageModel:
        """This model and others as one, the average of their probabilities; this one's weight is what
        the others leave of one. Raises UserError if they do not share a vocabulary and a direction."""
        vocabulary = self.tokenizer.backend.get_vocab()
        if any(other.tokenizer.backend.get_vocab() != vocabulary for other, _ in others):
            raise UserError("models can be mixed only if they have the same vocabulary.")
        if any(other.backward != self.backward or other.device != self.device for other, _ in others):
            raise UserError("models can be mixed only if they read in one direction, on one device.")
        weights = [weight for _, weight in others]
        if min(weights) <= 0 or sum(weights) >= 1:
            raise UserError("the weights of the models that are mixed in lie above 0, and sum to below 1.")
        decoders = [self.decoder, *(other.decoder for other, _ in others)]
        ensemble = Ensemble(decoders, [1 - sum(weights), *weights])
        return LanguageModel(self.network, self.tokenizer, self.facts, decoder=ensemble)

    def stream(self, prompt: str = "", *, seed: int | None = None, **settings: Any) -> Generator[Piece]:
        """Continue `prompt`, yielding a Piece for every token as it is made.

        `settings` are the fields of Request and of SamplingConfig: max_new_tokens, stop, temperature,
        top_p, … Without a `seed` each call gives another text. It ends after `max_new_tokens`, at a
        `stop` string, which is left out, or where the model ends the document. Raises UserError for
        settings out of range, with unknown="error" for characters that the vocabulary lacks, and if the
        model is `backward`: what that writes is known as a text only when it is whole.
        """
        self._forward_only()
        pieces = self.stream_all([prompt], [seed], **settings)
        return (piece for _, piece in pieces)

    def stream_all(
        self, prompts: Sequence[str], seeds: Sequence[int | None], **settings: Any
    ) -> Generator[tuple[int, Piece]]:
        """Continue each of `prompts` with its seed, decoded together; yields (its number, Piece)."""
        self._forward_only()
        request = Request.of(settings)
        reads = [self.encode(prompt, request.unknown) for prompt in prompts]
        seeds = [secrets.randbits(31) if seed is None else seed for seed in seeds]
        made = [self.constraints(prompt, request) for prompt in prompts]  # refuses what cannot be
        return self._pieces(prompts, reads, seeds, made, request)

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        num_samples: int = 1,
        seed: int | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        **settings: Any,
    ) -> list[Completion]:
        """Continue `prompt`, or each of several, `num_samples` times, decoded together; see `stream`.
        What a `backward` model writes comes before the prompt.

        Sample i is what `stream` writes with the seed `seed + i`. With `beams` above one, the samples
        are the best that a beam search of that width finds.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        request = Request.of(settings)
        if beams > 1:
            return [c for p in prompts for c in self._best(p, num_samples, beams, length_penalty, request)]
        first = secrets.randbits(31) if seed is None else seed
        prompts = [p for p in prompts for _ in range(num_samples)]
        seeds = [first + i for i in range(len(prompts))]
        if self.backward:
            return self._generate_backward(prompts, seeds, request)
        pieces: list[list[Piece]] = [[] for _ in prompts]
        for number, piece in self.stream_all(prompts, seeds, **settings):
            pieces[number].append(piece)
        return [
            Completion(
                text="".join(p.text for p in sample),
                tokens=[p.token for p in sample if p.token >= 0],
                logprobs=[p.logprob for p in sample if p.token >= 0],
                seed=seed,
            )
            for sample, seed in zip(pieces, seeds, strict=True)
        ]

    def session(self) -> Session:
        """A text, so far empty, with the state after it: to feed, sample, fork and rewind."""
        from lm.session import Session

        return Session(self)

    def score(self, text: str, *, unknown: str = "replace", alternatives: int = 0) -> list[Score]:
        """What the model thinks of each token of `text`, in the order of the text: log-probability,
        rank, entropy, and that many of the likeliest tokens in its place. Raises UserError for models
        that are mixed."""
        self._one_network("scored with")
        ids, name = np.array(self.encode(text, unknown), self.tokenizer.dtype), self.tokenizer.token_name
        scores = list(score_tokens(self.network, ids, self.start, alternatives))
        if self.backward:
            scores.reverse()
        return [
            Score(name(token), int(token), *figures, tuple((name(other), p) for other, p in others))
            for token, (*figures, others) in zip(ids, scores, strict=True)
        ]

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write config.json, model.safetensors, tokenizer.json and README.md into `folder`;
        `half` stores the weights as float16, in half the space."""
        from lm.saving import save_model

        self._one_network("saved")
        dtype = torch.float16 if half else torch.float32
        save_model(folder, self.network, self.tokenizer, self.facts, dtype)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the model to the Hugging Face Hub; its address."""
        from lm.saving import push

        self._one_network("saved")
        return push(self, repo_id, private)

    def encode(self, text: str, unknown: str = "replace") -> list[int]:
        """The tokens of `text`; characters that the vocabulary lacks are replaced by <unk>, skipped or,
        with "error", refused by a UserError."""
        missing = self.tokenizer.unknown_in(text) if unknown != "replace" else []
        if missing and unknown == "error":
            raise UserError(
                f"the model does not know {describe_unknown(self.tokenizer, text)}: leave them out, or"
                " choose --unknown skip or replace."
            )
        for character in missing:
            text = text.replace(character, "")
        return self.tokenizer.encode(text).tolist()

    def piece(self, token: Token, text: str) -> Piece:
        """A token with the text that it lets be shown."""
        name = self.tokenizer.token_name
        others = tuple((name(other), p) for other, p in token.alternatives)
        return Piece(text, token.token, token.logprob, others)

    def text_after(self, prompt: str, read: Sequence[int], stop: Sequence[str]) -> Text:
        """Turns the tokens that follow a prompt, read as these tokens, into text."""
        # A prompt that ends in a space has the one that goes before a word already.
        spaced = self.tokenizer.kind == "word" and prompt[-1:].isspace()
        return Text(self.tokenizer, tuple(stop), [] if spaced else list(read[-_LOOK_BACK:]))

    def _one_network(self, done: str) -> None:
        if isinstance(self.decoder, Ensemble):
            raise UserError(f"models that are mixed write, but cannot be {done} together: take one of them.")

    def _forward_only(self) -> None:
        if self.backward:
            raise UserError(
                "this model reads right to left and cannot continue a text: use"
                f" `{command('generate')}` to write what comes before the prompt."
            )

    def _pieces(
        self,
        prompts: Sequence[str],
        reads: list[list[int]],
        seeds: list[int],
        constraints: list[list[Constraint]],
        request: Request,
    ) -> Iterator[tuple[int, Piece]]:
        streams, texts, counts = [], [], [0] * len(prompts)
        for prompt, read, seed, limits in zip(prompts, reads, seeds, constraints, strict=True):
            streams.append(self.add([self.start, *read], seed, limits, request))
            texts.append(self.text_after(prompt, read, request.stop))
        tokens = self.streams.tokens(*streams)
        try:
            for number, token in tokens:
                text = texts[number]
                if text.ended:
                    continue
                counts[number] += 1
                shown = text.add(token.token, last=counts[number] == request.max_new_tokens)
                streams[number].ended |= text.ended
                yield number, self.piece(token, shown)
        finally:
            tokens.close()
        for number, text in enumerate(texts):
            if held := text.rest():
                yield number, Piece(held, -1, 0.0, ())

    def add(
        self,
        tokens: list[int],
        seed: int,
        constraints: list[Constraint],
        request: Request,
        **state: Any,
    ) -> Stream:
        """A stream that goes on after these tokens; `state` as for `Scheduler.add`."""
        return self.streams.add(
            tokens,
            request.sampling,
            seed,
            request.max_new_tokens,
            alternatives=request.alternatives,
            bias=request.logit_bias,
            constraints=constraints,
            **state,
        )

    def constraints(self, prompt: str, request: Request) -> list[Constraint]:
        """Those of one text, made anew for each: they remember what was written."""
        if request.match is not None and request.choices:
            raise UserError("a pattern and a list of choices contradict each other: name one of them.")
        if request.match is not None and self.backward:
            raise UserError("a model that reads right to left takes no pattern: name choices (--choice).")
        made: list[Constraint] = []
        words = self.tokenizer.kind == "word"  # which are written with a space before them, the first too
        if request.match is not None:
            made.append(Match(self.vocabulary, request.match, after_a_space=words))
        if request.choices:
            choices = [*request.choices, *(f" {choice}" for choice in request.choices if words)]
            made.append(OneOf(self.vocabulary, [self._in_order(choice) for choice in choices]))
        if request.ban:
            if words:  # the space between the prompt and the text is the word's that comes second
                prompt = f" {prompt.lstrip(' ')}" if self.backward else prompt.rstrip(" ")
            strings = [self._in_order(string) for string in request.ban]
            made.append(Banned(self.vocabulary, strings, self._in_order(prompt)))
        return made

    def _in_order(self, text: str) -> bytes:
        """The bytes of a text in the order in which they are written."""
        return text.encode("utf-8", "replace")[:: -1 if self.backward else 1]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens as the constraints know them."""
        tokenizer, pieces = self.tokenizer, []
        for token in range(tokenizer.vocab_size):
            piece = tokenizer.bytes_of(token)
            if piece is None:
                text = tokenizer.decode([token])
                piece = text.encode() if text.isspace() else b" " + text.encode()
            silent = token in (tokenizer.unk, tokenizer.end)
            pieces.append(None if silent or not piece else piece[:: -1 if self.backward else 1])
        return Vocabulary(pieces)

    def _best(
        self, prompt: str, samples: int, beams: int, length_penalty: float, request: Request
    ) -> list[Completion]:
        """The best of a beam search, which knows no sampler."""
        read = self.encode(prompt, request.unknown)
        tokens = [self.start, *(read[::-1] if self.backward else read)]
        limits = self.constraints(prompt, request)
        if size := request.sampling.no_repeat_ngram:
            limits.append(NoRepeat(self.tokenizer.vocab_size, size, tokens))
        found = beam_search(
            self.decoder, tokens, max(beams, samples), request.max_new_tokens,
            length_penalty=length_penalty, end=self.tokenizer.end, never=self.never,
            bias=request.logit_bias or {}, constraints=limits,
        )  # fmt: skip
        whole = self._whole_backward if self.backward else self._whole
        return [whole(prompt, read, one.tokens, one.logprobs, request.stop) for one in found[:samples]]

    def _whole(
        self, prompt: str, read: list[int], tokens: list[int], logprobs: list[float], stop: Sequence[str]
    ) -> Completion:
        """What tokens that were all decoded write, up to a stop string."""
        text, shown, count = self.text_after(prompt, read, stop), "", 0
        for count, token in enumerate(tokens, start=1):
            shown += text.add(token, last=count == len(tokens))
            if text.ended:
                break
        return Completion(shown, tokens[:count], logprobs[:count], None)

    def _whole_backward(
        self, prompt: str, read: list[int], tokens: list[int], logprobs: list[float], stop: Sequence[str]
    ) -> Completion:
        text = self._text_before(prompt, read, stop)
        for token, logprob in zip(tokens, logprobs, strict=True):
            text.add(token, logprob)
            if text.ended:
                break
        return Completion(text.text(), text.tokens[::-1], text.logprobs[::-1], None)

    def _generate_backward(
        self, prompts: Sequence[str], seeds: Sequence[int], request: Request
    ) -> list[Completion]:
        reads = [self.encode(prompt, request.unknown) for prompt in prompts]
        made = [self.constraints(prompt, request) for prompt in prompts]
        texts = [
            self._text_before(prompt, read, request.stop) for prompt, read in zip(prompts, reads, strict=True)
        ]
        streams = [
            self.add([self.start, *read[::-1]], seed, limits, request)
            for read, seed, limits in zip(reads, seeds, made, strict=True)
        ]
        for number, token in self.streams.tokens(*streams):
            if not texts[number].ended:
                texts[number].add(token.token, token.logprob)
                streams[number].ended |= texts[number].ended
        return [
            Completion(text.text(), text.tokens[::-1], text.logprobs[::-1], seed)
            for text, seed in zip(texts, seeds, strict=True)
        ]

    def _text_before(self, prompt: str, read: list[int], stop: Sequence[str]) -> TextBackward:
        spaced = self.tokenizer.kind == "word" and prompt[:1].isspace()
        return TextBackward(self.tokenizer, tuple(stop), [] if spaced else read[:_LOOK_BACK])
