"""Session: a text that grows, and the model's state after it.

The state has a fixed size, so that going back, branching and putting aside cost no more than a copy.

>>> session = model.session()
>>> session.feed("ROMEO:")
>>> for piece in session.sample(max_new_tokens=100, temperature=0.8): ...
>>> branch = session.fork(); session.rewind(20); session.save("scene.session")
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from lm.errors import ModelError, UserError
from lm.files import replacing
from lm.generation.decoder import PREFILL_CHUNK
from lm.generation.request import Request
from lm.language_model import LanguageModel, Piece
from lm.model.cells import State

_ALL_KEPT = 512  # tokens, the last ones, after each of which the state is kept
_ONE_OF = 64  # of those before them


class Session:
    """Made by `LanguageModel.session`. A `backward` model has none: its text grows at the other end."""

    def __init__(self, model: LanguageModel):
        if model.backward:
            raise UserError(
                "a model that reads right to left has no session: its text grows at its beginning."
            )
        self._model = model
        self.tokens = [model.start]  # the first stands before the text
        # By number of tokens, the state after so many; always that after all but the last one.
        self._states: dict[int, State] = {0: model.decoder.initial_state()}

    @property
    def text(self) -> str:
        """The whole text."""
        return self._model.tokenizer.decode(self.tokens[1:])

    def __len__(self) -> int:
        return len(self.tokens) - 1

    def feed(self, text: str, *, unknown: str = "replace") -> None:
        """Add a text, read at the speed of training. Raises UserError as `LanguageModel.encode` does."""
        tokens = self._model.encode(text, unknown)
        at = len(self.tokens) - 1
        self.tokens += tokens
        state = self._states[at]
        while at < len(self.tokens) - 1:
            window = self.tokens[at : min(at + PREFILL_CHUNK, len(self.tokens) - 1)]
            state = self._model.decoder.prefill(torch.tensor(window), state)
            at += len(window)
            self._states[at] = state

    def sample(self, *, seed: int | None = None, **settings: Any) -> Generator[Piece]:
        """Let the model go on, yielding a Piece for each token; `settings` as for `LanguageModel.stream`.
        The text holds what was yielded, whenever one stops; a `stop` string is left out of both."""
        model, request = self._model, Request.of(settings)
        seed = secrets.randbits(31) if seed is None else seed
        constraints = model.constraints(self.text[-1000:], request)
        history, last, state = self.tokens[:-1], self.tokens[-1], self._states[len(self.tokens) - 1]
        text = model.text_after(self.text[-4:], self.tokens[1:], request.stop)
        stream = model.add([last], seed, constraints, request, state=state, keep_states=True, history=history)
        tokens, wanted = model.streams.tokens(stream), self.text
        try:
            for count, (_, token) in enumerate(tokens, start=1):
                self._states[len(self.tokens)] = token.state
                self.tokens.append(token.token)
                self._thin_out()
                shown = text.add(token.token, last=count == request.max_new_tokens)
                wanted += shown
                if text.ended and request.stop:
                    self._cut_to(wanted)
                yield model.piece(token, shown)
                if text.ended:
                    break
        finally:
            tokens.close()
        if held := text.rest():
            yield Piece(held, -1, 0.0, ())

    def next(self, count: int = 10) -> list[tuple[str, int, float]]:
        """The likeliest next tokens that may be written: what to show for each, its id, its probability."""
        batch = self._model.decoder.batch()
        batch.add(self._states[len(self.tokens) - 1])
        last = torch.tensor(self.tokens[-1:], device=self._model.device)
        best = batch.step(last)[0].softmax(dim=-1).sort(descending=True)
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        name, never = self._model.tokenizer.token_name, self._model.never
        return [(name(token), token, p) for token, p in ranked if token not in never][:count]

    def add(self, token: int) -> None:
        """Add one token, such as one of `next`."""
        at = len(self.tokens) - 1
        self._states[at + 1] = self._stepped(self._states[at], self.tokens[-1:])
        self.tokens.append(token)

    def fork(self) -> Session:
        """A second session that goes on from here by itself."""
        other = Session(self._model)
        other.tokens, other._states = list(self.tokens), dict(self._states)
        return other

    def rewind(self, count: int) -> None:
        """Take back the last `count` tokens. Raises UserError if there are not so many."""
        if not 0 <= count <= len(self):
            raise UserError(f"the text has {len(self)} tokens: {count} cannot be taken back.")
        del self.tokens[len(self.tokens) - count :]
        at = len(self.tokens) - 1
        kept = max(number for number in self._states if number <= at)
        # Step by step, as they were written, to the same last bit.
        self._states[at] = self._stepped(self._states[kept], self.tokens[kept:at])
        self._states = {number: state for number, state in self._states.items() if number <= at}

    def save(self, path: str | Path) -> None:
        """Write text and state into one file."""
        state = self._states[len(self.tokens) - 1]
        tensors = {f"state.{i}": part.contiguous() for i, part in enumerate(state)}
        tensors["tokens"] = torch.tensor(self.tokens)
        facts = {"format_version": 1, "model": self._model.decoder.fingerprint()}
        with replacing(path) as partial:
            save_file(tensors, partial, {"session": json.dumps(facts)})

    @classmethod
    def load(cls, model: LanguageModel, path: str | Path) -> Session:
        """Read what `save` wrote. Raises ModelError if it is damaged or of another model."""
        session = cls(model)
        try:
            with safetensors.safe_open(str(path), "pt") as file:
                facts = json.loads((file.metadata() or {})["session"])
            tensors = load_file(str(path))
            session.tokens = tensors["tokens"].tolist()
            state = tuple(tensors[f"state.{i}"].to(model.device) for i in range(len(tensors) - 1))
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise ModelError(f"{path} holds no session that can be read.") from error
        if facts.get("format_version") != 1 or facts.get("model") != model.decoder.fingerprint():
            raise ModelError(f"{path} is a session of another model or a newer program.")
        session._states = {0: model.decoder.initial_state(), len(session.tokens) - 1: state}
        return session

    def _stepped(self, state: State, tokens: list[int]) -> State:
        batch = self._model.decoder.batch()
        batch.add(state)
        for token in tokens:
            batch.step(torch.tensor([token], device=self._model.device))
        return batch.state(0)

    def _cut_to(self, text: str) -> None:
        """Take back what goes on behind this beginning of the text."""
        while len(self.text) > len(text):
            self.rewind(1)
        self.feed(text[len(self.text) :])  # what a token wrote before the place at which it was cut

    def _thin_out(self) -> None:
        """Forget most of the states that are long past: they can be computed again."""
        old = len(self.tokens) - _ALL_KEPT
        if old > 0 and old % _ONE_OF:
            self._states.pop(old, None)
