"""LanguageModel: a network with its tokenizer, the one object that everyone asks.

The training loop, generate.py, the web page and a notebook all use these few methods.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm.config import SamplingConfig
from lm.errors import UserError
from lm.evaluation import Score, score_tokens
from lm.generation.decoder import Decoder, Step
from lm.network import RecurrentLM
from lm.settings import build
from lm.tokenizer import Tokenizer

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
    seed: int


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
        precision: torch.dtype = torch.float32,
    ):
        self.network, self.tokenizer, self.facts = network, tokenizer, facts or {}
        self.device = next(network.parameters()).device
        self.backward = network.config.backward
        self._decoder = Decoder(network, precision)
        # A document begins after the end of another. A model of one single document has never
        # seen such an end: it begins at a line's end, the next best place, and never ends.
        self.start, self._never = tokenizer.eos, [] if tokenizer.unk is None else [tokenizer.unk]
        if self.facts.get("trained_on", {}).get("documents") == 1:
            newline = tokenizer.encode("\n")
            if len(newline) == 1 and newline[0] != tokenizer.unk:
                self.start = int(newline[0])
            if tokenizer.end is not None:
                self._never.append(tokenizer.end)

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 400,
        seed: int | None = None,
        stop: tuple[str, ...] | list[str] = (),
        unknown: str = "replace",
        alternatives: int = 0,
        **sampling: Any,
    ) -> Generator[Piece]:
        """Continue `prompt`, yielding a Piece for every token as it is made.

        `sampling` takes the fields of SamplingConfig: temperature, top_k, top_p, greedy. Without
        a `seed` each call gives another text. It ends after `max_new_tokens`, at a `stop` string,
        which is left out, or where the model ends the document. Raises UserError for settings out
        of range, with unknown="error" for characters that the vocabulary lacks, and if the model is
        `backward`: what that writes is known as a text only when it is whole.
        """
        if self.backward:
            raise UserError(
                "this model reads right to left and cannot go on with a text: python generate.py with it"
                " writes what leads up to the prompt."
            )
        seeds = [secrets.randbits(31) if seed is None else seed]
        pieces = self._generate(prompt, seeds, max_new_tokens, stop, unknown, alternatives, sampling)
        return (piece for _, piece in pieces)

    def generate(
        self,
        prompt: str = "",
        *,
        num_samples: int = 1,
        max_new_tokens: int = 400,
        seed: int | None = None,
        stop: tuple[str, ...] | list[str] = (),
        unknown: str = "replace",
        **sampling: Any,
    ) -> list[Completion]:
        """Continue `prompt` `num_samples` times, decoded together; see `stream`. What a `backward`
        model writes comes before the prompt.

        Sample i is what `stream` writes with the seed `seed + i`.
        """
        first = secrets.randbits(31) if seed is None else seed
        seeds = [first + i for i in range(num_samples)]
        if self.backward:
            return self._generate_backward(prompt, seeds, max_new_tokens, stop, unknown, sampling)
        pieces: list[list[Piece]] = [[] for _ in seeds]
        for index, piece in self._generate(prompt, seeds, max_new_tokens, stop, unknown, 0, sampling):
            pieces[index].append(piece)
        return [
            Completion(
                text="".join(p.text for p in sample),
                tokens=[p.token for p in sample],
                logprobs=[p.logprob for p in sample],
                seed=seed,
            )
            for sample, seed in zip(pieces, seeds, strict=True)
        ]

    def score(self, text: str, *, unknown: str = "replace") -> list[Score]:
        """What the model thinks of each token of `text`, in the order of the text: log-probability,
        rank, entropy."""
        ids = self._encode(text, unknown)
        scores = list(score_tokens(self.network, ids, self.start))
        if self.backward:
            scores.reverse()
        return [
            Score(self.tokenizer.token_name(token), int(token), *score)
            for token, score in zip(ids, scores, strict=True)
        ]

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write config.json, model.safetensors, tokenizer.json and README.md into `folder`;
        `half` stores the weights as float16, in half the space."""
        from lm.hub import save_model

        dtype = torch.float16 if half else torch.float32
        save_model(folder, self.network, self.tokenizer, self.facts, dtype)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the model to the Hugging Face Hub; its address."""
        from lm.hub import push

        return push(self, repo_id, private)

    def _encode(self, text: str, unknown: str) -> np.ndarray:
        missing = self.tokenizer.unknown_in(text) if unknown != "replace" else []
        if missing and unknown == "error":
            raise UserError(
                f"the model does not know {', '.join(map(repr, missing[:8]))}: leave them out, or"
                " choose --unknown skip or replace."
            )
        for character in missing:
            text = text.replace(character, "")
        return self.tokenizer.encode(text)

    def _generate(
        self,
        prompt: str,
        seeds: list[int],
        max_new_tokens: int,
        stop: tuple[str, ...] | list[str],
        unknown: str,
        alternatives: int,
        sampling: dict[str, Any],
    ) -> Iterator[tuple[int, Piece]]:
        """Check everything at once, then yield (stream, Piece) until every stream has ended."""
        tokenizer = self.tokenizer
        read = self._encode(prompt, unknown).tolist()
        # A prompt that ends in a space has the one that goes before a word already.
        after = [] if tokenizer.kind == "word" and prompt[-1:].isspace() else read[-_LOOK_BACK:]
        streams = {i: _Text(tokenizer, tuple(stop), after) for i in range(len(seeds))}
        steps = self._steps(read, seeds, max_new_tokens, alternatives, sampling)
        return self._pieces(steps, streams, max_new_tokens)

    def _generate_backward(
        self,
        prompt: str,
        seeds: list[int],
        max_new_tokens: int,
        stop: tuple[str, ...] | list[str],
        unknown: str,
        sampling: dict[str, Any],
    ) -> list[Completion]:
        read = self._encode(prompt, unknown).tolist()
        before = [] if self.tokenizer.kind == "word" and prompt[:1].isspace() else read[:_LOOK_BACK]
        streams = [_TextBackward(self.tokenizer, tuple(stop), before) for _ in seeds]
        for step in self._steps(read[::-1], seeds, max_new_tokens, 0, sampling):
            for index, stream in enumerate(streams):
                if not stream.ended:
                    stream.add(step.tokens[index], step.logprobs[index])
            if all(stream.ended for stream in streams):
                break
        return [
            Completion(stream.text(), stream.tokens[::-1], stream.logprobs[::-1], seed)
            for stream, seed in zip(streams, seeds, strict=True)
        ]

    def _steps(
        self,
        read: list[int],
        seeds: list[int],
        max_new_tokens: int,
        alternatives: int,
        sampling: dict[str, Any],
    ) -> Iterator[Step]:
        """What the network writes after it has `read` those tokens."""
        return self._decoder.generate(
            torch.tensor([self.start, *read]).to(self.device),
            seeds,
            build(SamplingConfig, sampling),
            max_new_tokens,
            banned=self._never,
            alternatives=alternatives,
        )

    def _pieces(
        self, steps: Iterator[Step], streams: dict[int, _Text], max_new_tokens: int
    ) -> Iterator[tuple[int, Piece]]:
        name = self.tokenizer.token_name
        for number, step in enumerate(steps, start=1):
            for index, text in list(streams.items()):
                token = step.tokens[index]
                shown = text.add(token, last=number == max_new_tokens)
                named = tuple((name(other), p) for other, p in step.alternatives[index])
                if text.ended:
                    del streams[index]
                yield index, Piece(shown, token, step.logprobs[index], named)
            if not streams:
                return


class _Text:
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
            self.ended = True
            return text[:found]
        self.ended = last or token == self._end
        keep = 0 if self.ended else self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string could begin."""
        longest = max((len(s) for s in self._stop), default=0)
        for length in range(min(len(text), longest - 1), 0, -1):
            if any(s.startswith(text[-length:]) for s in self._stop):
                return length
        return 0


class _TextBackward:
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
