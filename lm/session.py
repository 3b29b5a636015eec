"""Session: a growing text and the model's state after it.

The state has a fixed size, however long the text: going back, branching and saving cost no more than a copy.

>>> session = model.session()
>>> session.feed("ROMEO:")
>>> for piece in session.sample(max_new_tokens=100, temperature=0.8): ...
>>> branch = session.fork(); session.rewind(20); session.save("scene.session")
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import torch

from lm.config.schema import SamplingConfig
from lm.config.settings import whole_number
from lm.console.wording import plural
from lm.errors import ModelError, UserError
from lm.files.atomic import replacing, writing
from lm.files.model_files import parse_json
from lm.files.paths import expanded
from lm.files.tensor_files import read_metadata, read_tensors, write_tensors
from lm.generation.decoder import PREFILL_CHUNK
from lm.generation.request import Request, seed_or_random
from lm.generation.text_generator import Piece, TextGenerator
from lm.model.cells import State

_FORMAT_VERSION = 1
RECENT = 512  # the state after each of this many last tokens is stored
INTERVAL = 64  # of the states before them, one in this many is stored


class GeneratesText(Protocol):
    """What a session needs of a LanguageModel."""

    generator: TextGenerator


class Session:
    """Created by `LanguageModel.session`.

    `tokens` begins with the token that precedes every text. Raises UserError for a backward model, whose
    text grows at the other end.
    """

    def __init__(self, model: GeneratesText):
        self._model, self._generator = model, model.generator
        self._generator.require_forward()
        self.tokens = [self._generator.start_token]
        # The state after the first n tokens, for some n; always for all tokens but the last.
        self._states: dict[int, State] = {0: self._generator.decoder.initial_state()}

    @property
    def text(self) -> str:
        """The whole text."""
        return self._generator.tokenizer.decode(self.tokens[1:])

    def __repr__(self) -> str:
        """Session(6 tokens, 'ROMEO:')."""
        return f"Session({plural(len(self), 'token')}, {textwrap.shorten(self.text, 60, placeholder=' …')!r})"

    def __len__(self) -> int:
        """The number of tokens in the text."""
        return len(self.tokens) - 1

    def feed(self, text: str, *, unknown: str = "replace") -> None:
        """Append a text, read at the speed of training. Raises UserError as `LanguageModel.encode` does."""
        for _ in self.read(text, unknown=unknown):
            pass

    def read(self, text: str, *, unknown: str = "replace") -> Generator[float]:
        """`feed` in steps, for long texts: yields the share that has been read. When closed, the session ends
        there."""
        continues = len(self) > 0 and self.tokens[-1] != self._generator.tokenizer.eos
        tokens = self._generator.encode(text, unknown, continues=continues)
        unread = [self.tokens[-1], *tokens[:-1]]
        for begin in range(0, len(tokens), PREFILL_CHUNK):
            end = min(begin + PREFILL_CHUNK, len(tokens))
            state = self._generator.decoder.prefill(torch.tensor(unread[begin:end]), self._states[len(self)])
            self.tokens += tokens[begin:end]
            self._states[len(self)] = state
            yield end / len(tokens)

    def sample(
        self, *, seed: int | None = None, after_space: bool = False, **settings: Any
    ) -> Generator[Piece]:
        """Let the model continue the text, yielding a Piece for each token; see `LanguageModel.stream`.

        Whenever the caller stops, the session's text ends with what was yielded, with two exceptions. A word
        model drops an incomplete word. An incomplete character, of which nothing was yielded, stays: `text`
        shows it as U+FFFD until it is complete. A `stop` string is left out. `after_space`: the caller
        displays a space after the text, for which a word model has no token, so the first word is yielded
        without its leading space.
        """
        generator, request = self._generator, Request.from_settings(settings)
        before, tokens, yielded = self.text, self.tokens[1:], ""
        stream = generator.new_stream(
            self.tokens[-1:],
            seed_or_random(seed),
            generator.constraints(before, tokens, request),
            request,
            state=self._states[len(self)],
            keep_states=True,
            past=tokens,
        )
        spaced = after_space and generator.tokenizer.kind == "word" and before[-1:] not in ("", "\n")
        detokenizer = generator.detokenizer(" " if spaced else before[-4:], tokens, request.stop)
        # If the text ends inside of a character, what follows completes or replaces it.
        whole = before.removesuffix(generator.tokenizer.decode_stream(tokens[-3:]).rest()) + " " * spaced
        with closing(generator.decode([stream], [detokenizer])) as decoded:
            for _, token, piece in decoded:
                yielded += piece.text
                if token is not None:
                    assert token.state is not None  # requested by keep_states
                    self._states[len(self.tokens)] = token.state
                    self.tokens.append(token.token)
                    self._discard_old_state()
                    if detokenizer.ended and request.stop:
                        self._truncate(whole + yielded if yielded else before)
                try:
                    yield piece
                except GeneratorExit:  # the possible start of a stop string may be held back
                    self._truncate(whole + yielded if yielded else before)
                    raise

    def next(self, count: int = 10) -> list[tuple[str, int, float]]:
        """The `count` most likely next tokens that can be generated: (name, token, probability)."""
        generator, count = self._generator, whole_number("count", count, 0)
        batch = generator.decoder.batch()
        batch.add(self._states[len(self)])
        last = torch.tensor(self.tokens[-1:], device=generator.decoder.device)
        best = batch.step(last)[0].softmax(dim=-1).sort(descending=True)
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        name, suppressed = generator.tokenizer.token_name, generator.suppressed_tokens
        return [(name(token), token, p) for token, p in ranked if token not in suppressed][:count]

    def outlook(self, tokens: Sequence[int], characters: int) -> list[str]:
        """The most likely text of up to this many characters after each of `tokens`, such as those of `next`,
        if it came next. All are generated in one batch."""
        generator, request = self._generator, Request(SamplingConfig(greedy=True), 4 * characters)
        state = self._step(self._states[len(self)], self.tokens[-1:])
        streams = [generator.new_stream([token], 0, [], request, state=state) for token in tokens]
        end, texts = generator.tokenizer.decode(self.tokens[1:][-4:]), [""] * len(tokens)
        detokenizers = [generator.detokenizer(end, self.tokens[1:]) for _ in tokens]
        for detokenizer, token in zip(detokenizers, tokens, strict=True):
            detokenizer.add(token, last=False)
        with closing(generator.decode(streams, detokenizers)) as decoded:
            for index, _, piece in decoded:
                texts[index] += piece.text
                if len(texts[index]) >= characters:
                    streams[index].end()
        return [text[:characters] for text in texts]

    def add(self, token: int) -> None:
        """Append one token, such as one of `next`. Raises UserError if it is not in the vocabulary."""
        last, token = self._generator.tokenizer.vocab_size - 1, whole_number("token", token, 0)
        if token > last:
            raise UserError(f"token must be at most {last:,}, got {token:,}.")
        self._states[len(self) + 1] = self._step(self._states[len(self)], self.tokens[-1:])
        self.tokens.append(token)

    def fork(self) -> Session:
        """An independent copy."""
        other = Session(self._model)
        other.tokens, other._states = list(self.tokens), dict(self._states)
        return other

    def rewind(self, count: int) -> None:
        """Remove the last `count` tokens. Raises UserError if the text has fewer."""
        count = whole_number("count", count)
        if not 0 <= count <= len(self):
            raise UserError(f"cannot remove {count} tokens: the text has {len(self)}.")
        del self.tokens[len(self.tokens) - count :]
        stored = max(n for n in self._states if n <= len(self))
        # Step by step, as they were generated, so that the state is the same to the last bit.
        self._states[len(self)] = self._step(self._states[stored], self.tokens[stored : len(self)])
        self._states = {n: state for n, state in self._states.items() if n <= len(self)}

    def save(self, path: str | Path) -> None:
        """Write text and state to one file. Raises UserError if that fails, which keeps the previous file."""
        tensors = {f"state.{i}": part.cpu() for i, part in enumerate(self._states[len(self)])}
        tensors["tokens"] = torch.tensor(self.tokens)
        facts = {"format_version": _FORMAT_VERSION, "model": self._generator.decoder.fingerprint()}
        with writing(path), replacing(expanded(path)) as partial:
            write_tensors(partial, tensors, {"session": json.dumps(facts)})

    @classmethod
    def load(cls, model: GeneratesText, path: str | Path) -> Session:
        """Read what `save` wrote. Raises ModelError if the file is damaged or of another model."""
        session, decoder = cls(model), model.generator.decoder
        file = expanded(path).resolve()
        try:
            facts, tensors = parse_json(read_metadata(file)["session"].encode()), read_tensors(file)
            version, fingerprint = facts["format_version"], facts["model"]
            tokens, state = tensors.pop("tokens"), tuple(tensors[f"state.{i}"] for i in range(len(tensors)))
        except (ModelError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is not a readable session.") from error
        if version != _FORMAT_VERSION or fingerprint != decoder.fingerprint():
            raise ModelError(f"{path} is a session of another model or a newer version.")
        initial = decoder.initial_state()
        expected = [(part.shape, part.dtype) for part in initial]
        vocab_size = model.generator.tokenizer.vocab_size
        if (
            [(part.shape, part.dtype) for part in state] != expected
            or (tokens.dim(), tokens.dtype) != (1, torch.int64)
            or not len(tokens)
            or not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size
        ):
            raise ModelError(f"{path} is damaged: its text or state does not fit the model.")
        session.tokens = tokens.tolist()
        session._states = {
            0: initial,
            len(session): tuple(part.to(decoder.device, copy=True) for part in state),
        }
        return session

    def _step(self, state: State, tokens: list[int]) -> State:
        """The state after reading `tokens` one by one."""
        decoder = self._generator.decoder
        batch = decoder.batch()
        batch.add(state)
        for token in tokens:
            batch.step(torch.tensor([token], device=decoder.device))
        return batch.state(0)

    def _truncate(self, text: str) -> None:
        """Keep only `text`, with which the session's text begins."""
        # Not only while it is longer: the last token may begin inside of a character.
        while not text.startswith(self.text):
            self.rewind(1)
        # What the last token wrote before the stop string. A word model does not know half a word.
        self.feed(text[len(self.text) :], unknown="skip")

    def _discard_old_state(self) -> None:
        """Of the states long past, keep one in INTERVAL: the others can be recomputed."""
        old = len(self.tokens) - RECENT
        if old > 0 and old % INTERVAL:
            self._states.pop(old, None)
