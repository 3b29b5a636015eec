"""The internal values of a network while it reads a text: hidden states, cell states and gates.

One pass of the network's own fast layers gives the hidden states. Everything else is computed from them: with
x_t and h_{t-1} known, the gates of all steps are two matrix products, and the LSTM's cell state is
c_t = f ⊙ c_{t-1} + i ⊙ g. Names are as in lm/model/cells.py.

>>> import lm
>>> from lm.insight.trace import trace_text
>>> trace = trace_text(lm.load("runs/hamlet"), "To be, or not to be")
>>> trace.values(layer=0, name="f", unit=17)  # the forget gate after each character
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from lm.config.settings import whole_number
from lm.errors import UserError
from lm.insight.spans import token_spans
from lm.insight.surprisal import encode_known
from lm.language_model import LanguageModel, require_one_network
from lm.model.cells import CELLS, State, split_gates
from lm.model.layers import RecurrentLayers
from lm.model.loss import top_logprobs
from lm.model.network import RecurrentLM

_WINDOW = 4096  # tokens computed at a time


@dataclass(frozen=True, eq=False)
class Start:
    """Where a network goes on reading: the last token read, and the state of each layer after it."""

    token: int
    states: list[State]  # each (1, 1, units)


@dataclass(frozen=True, eq=False)
class Trace:
    """A text and the state of the network after it read each token.

    Layers, units, tokens and characters are numbered from 0. The state "at" a token is the one after reading
    it. A backward model has then read the token and everything to its right.
    """

    model: LanguageModel
    text: str  # normalized as in training
    tokens: np.ndarray  # (tokens,)
    starts: np.ndarray  # (tokens,) the first character of each token
    ends: np.ndarray  # (tokens,) the end of its characters, exclusive
    # For each layer (1 + tokens, units), in reading order. The first row is the state after the start token.
    hidden: list[np.ndarray]
    start: Start | None = None  # where the reading began, if not at the beginning of a text
    # Cell states computed so far, by layer; like `hidden`.
    cell_states: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def cell(self) -> str:
        """rnn, gru or lstm."""
        return self.model.network.config.cell

    @property
    def layers(self) -> int:
        """The number of recurrent layers."""
        return len(self.hidden)

    @property
    def units(self) -> int:
        """The number of units per layer."""
        return self.hidden[0].shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """What `values` can return: the states, then the gates."""
        cell = CELLS[self.cell]
        return tuple(dict.fromkeys((*cell.states, *cell.gates)))

    @cached_property
    def last_read(self) -> np.ndarray:
        """The character (tokens,) of each token that is read last."""
        return self.starts if self.model.backward else np.maximum(self.ends - 1, self.starts)

    def values(self, layer: int, name: str, unit: int | None = None) -> np.ndarray:
        """A state or gate of a layer at each token, in text order: (tokens, units), or (tokens,) for one
        `unit`. Raises UserError if the layer, unit or name does not exist."""
        self.check(layer, unit)
        if name not in self.names:
            raise UserError(f"the {self.cell} cell has no {name!r}: choose one of {', '.join(self.names)}.")
        units = slice(None) if unit is None else slice(unit, unit + 1)
        if name in CELLS[self.cell].states:
            values = (self.hidden[layer] if name == "h" else self.cell_state(layer))[1:, units]
        else:
            count = len(self.tokens)
            windows = (slice(1 + i, 1 + min(i + _WINDOW, count)) for i in range(0, count, _WINDOW))
            values = np.concatenate([self.gates(layer, steps, units)[name] for steps in windows])
        values = self.model.direction.reorder(values)
        return values if unit is None else values[:, 0]

    def cell_state(self, layer: int) -> np.ndarray:
        """The LSTM's c of a layer (1 + tokens, units), in reading order like `hidden`."""
        if layer not in self.cell_states:
            steps, units = self.hidden[layer].shape
            c = np.zeros((1 + steps, units), self.hidden[layer].dtype)  # the first row: before any token
            if self.start:
                c[1] = _array(self.start.states[layer][1][0, 0])
            for begin in range(1 if self.start else 0, steps, _WINDOW):
                gates = self.gates(layer, slice(begin, min(begin + _WINDOW, steps)))
                added = gates["i"] * gates["g"]
                window = c[begin : begin + len(added) + 1]
                for before, after, f, ig in zip(window, window[1:], gates["f"], added, strict=False):
                    np.multiply(f, before, out=after)
                    after += ig
            self.cell_states[layer] = c[1:]
        return self.cell_states[layer]

    def gates(self, layer: int, steps: slice, units: slice = slice(None)) -> dict[str, np.ndarray]:
        """The gates of a layer at the given reading steps, each (steps, units)."""
        w_ih, w_hh, b_ih, b_hh = (self._of_units(w, units) for w in self.weights(layer))
        from_x = self.inputs(layer, steps) @ w_ih.T + b_ih
        from_h = self.before(layer, steps) @ w_hh.T + b_hh
        x_parts, h_parts = (split_gates(self.cell, torch.from_numpy(part)) for part in (from_x, from_h))
        values: dict[str, Tensor] = {}
        for name, activation in CELLS[self.cell].gates.items():
            h_part = values["r"] * h_parts[name] if name == "n" else h_parts[name]
            values[name] = getattr(torch, activation)(x_parts[name] + h_part)
        return {name: value.numpy() for name, value in values.items()}

    def inputs(self, layer: int, steps: slice = slice(None)) -> np.ndarray:
        """The input of a layer at the given reading steps (steps, width): the embedding, or the output of the
        layer below. That of layer `trace.layers`, above the last, is the input of the decoder."""
        network = self.model.network
        if layer == 0:
            return _array(network.embedding.weight)[self._ids[steps]]
        output = self.hidden[0][steps]
        for hidden in self.hidden[1:layer]:
            output = hidden[steps] + output if network.config.residual else hidden[steps]
        return output

    def before(self, layer: int, steps: slice) -> np.ndarray:
        """h of a layer before each of the given reading steps (steps, units)."""
        begin, end, _ = steps.indices(len(self._ids))
        hidden = self.hidden[layer]
        if begin:
            return hidden[begin - 1 : end - 1]
        return np.vstack([np.zeros_like(hidden[:1]), hidden[: end - 1]])

    @torch.inference_mode()
    def predictions(self, token: int, count: int) -> list[tuple[str, float]]:
        """The `count` tokens that were most likely in place of a token, with their probabilities."""
        network, step = self.model.network, self.step(token)
        output = torch.from_numpy(self.inputs(self.layers, slice(step - 1, step)))
        logits = network.decode(output.to(network.decoder.weight.device))
        best = top_logprobs(torch.log_softmax(logits, dim=-1), count)[0]
        return [(self.model.tokenizer.token_name(token), math.exp(logprob)) for token, logprob in best]

    def weights(self, layer: int) -> list[np.ndarray]:
        """weight_ih, weight_hh, bias_ih and bias_hh of a layer, as in torch."""
        return [_array(weight) for weight in self.model.network.recurrent.weights(layer)]

    def step(self, token: int) -> int:
        """The reading step of a token: its row of `hidden`."""
        return 1 + self.model.direction.position(token, len(self.tokens))

    def token_at(self, character: int) -> int:
        """The last token that starts at or before a character of the text. Raises UserError if there is no
        such character."""
        if not 0 <= character < len(self.text):
            raise UserError(f"character must be between 0 and {len(self.text) - 1}, got {character}.")
        return max(int(np.searchsorted(self.starts, character, side="right")) - 1, 0)

    def check(self, layer: int, unit: int | None = None) -> None:
        """Raise UserError for a layer or unit that does not exist."""
        for name, number, count in (("layer", layer, self.layers), ("unit", unit, self.units)):
            if number is not None and not 0 <= whole_number(name, number) < count:
                raise UserError(f"{name} must be between 0 and {count - 1}, got {number}.")

    @cached_property
    def _ids(self) -> np.ndarray:
        """The start token and all others (1 + tokens,), in reading order."""
        first = self.start.token if self.start else self.model.start_token
        return np.concatenate([[first], self.model.direction.reorder(self.tokens)]).astype(np.int64)

    def _of_units(self, weight: np.ndarray, units: slice) -> np.ndarray:
        """The rows of a matrix or bias for the given units, gate by gate."""
        gates = weight.reshape(-1, self.units, *weight.shape[1:])[:, units]
        return gates.reshape(-1, *weight.shape[1:])


def trace_text(
    model: LanguageModel, text: str, *, progress: Callable[[float], None] = lambda fraction: None
) -> Trace:
    """Read a text, reporting the fraction read so far. Raises UserError if the text is empty or entirely
    unknown to the model, for an ensemble, and for a model with clamped units."""
    require_one_network(model, "be traced")
    encoded, tokens = encode_known(model.tokenizer, text)
    starts, ends = token_spans(model.tokenizer, encoded, tokens)
    ids = np.concatenate([[model.start_token], model.direction.reorder(tokens)])
    hidden, _ = read(model.network, ids.astype(np.int64), None, progress)
    return Trace(model, encoded.decode(), tokens, starts, ends, hidden)


@torch.inference_mode()
def read(
    network: RecurrentLM,
    ids: np.ndarray,
    start: Sequence[State] | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[list[np.ndarray], list[State]]:
    """ids (steps,) and the state of each layer before them (None: the zero state) -> for each layer,
    h (steps, units) after each step, and the state after the last."""
    config, recurrent = network.config, network.recurrent
    weight = network.embedding.weight
    hidden = [
        np.empty((len(ids), config.hidden_size), _array(weight[:0]).dtype) for _ in range(config.layers)
    ]
    states: list[State | None] = [*start] if start else [None] * config.layers
    with torch.device("meta"):  # a layer without weights, called below with those of each layer
        one = RecurrentLayers(replace(config, layers=1), config.hidden_size).eval()
    for begin in range(0, len(ids), _WINDOW):
        window = torch.from_numpy(ids[begin : begin + _WINDOW]).to(weight.device)
        x = weight[window][:, None]  # (time, batch, width)
        for layer in range(config.layers):
            weights = dict(zip(dict(one.named_parameters()), recurrent.weights(layer), strict=True))
            h, states[layer] = functional_call(one, weights, (x, states[layer]))
            hidden[layer][begin : begin + len(window)] = _array(h[:, 0])
            x = h + x if config.residual and layer > 0 else h
        progress(min(begin + _WINDOW, len(ids)) / len(ids))
    return hidden, [state for state in states if state is not None]


def _array(weight: Tensor) -> np.ndarray:
    return weight.detach().cpu().numpy()
