"""A text read by a network, with everything that goes on inside: states, memories, gates.

The hidden states come from the network's own fast layers, one pass over the text. All else follows from
them without another: the gates of all steps are two matrix products, because x_t and h_{t-1} are known by
then, and the LSTM's memory is c_t = f ⊙ c_{t-1} + i ⊙ g. Names as in lm/model/cells.py.

>>> import lm
>>> from lm.insight.trace import trace_text
>>> trace = trace_text(lm.load("runs/hamlet"), "To be, or not to be")
>>> trace.values(layer=0, name="f", unit=17)  # the forget gate after each character
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from lm.errors import UserError
from lm.insight.places import token_spans
from lm.insight.surprisal import encode_known
from lm.language_model import LanguageModel
from lm.model.cells import State
from lm.model.layers import RecurrentLayers
from lm.model.loss import top_logprobs
from lm.model.network import RecurrentLM

# The states of each cell, then its gates in the order of torch's weights.
STATES = {"rnn": ("h",), "gru": ("h",), "lstm": ("h", "c")}
GATES = {"rnn": (), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}
_WINDOW = 4096  # tokens that are computed at a time


@dataclass(frozen=True, eq=False)
class Trace:
    """A text and what the network held after reading each of its tokens.

    Layers, units, tokens and characters are numbered from 0. "At" a token is after it was read: for a
    model that reads right to left that is before all that stands to the left of it.
    """

    model: LanguageModel
    text: str  # as it was read: with the line ends of training
    tokens: np.ndarray  # (tokens,)
    starts: np.ndarray  # (tokens,) the first character of each
    ends: np.ndarray  # (tokens,) the one behind its last
    # For each layer (1 + tokens, units), in the order of reading; the first row is the state before the
    # text, after the token that texts begin with.
    hidden: list[np.ndarray]
    _memories: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def cell(self) -> str:
        """rnn, gru or lstm."""
        return self.model.network.config.cell

    @property
    def layers(self) -> int:
        """How many recurrent layers there are."""
        return len(self.hidden)

    @property
    def units(self) -> int:
        """How many units each layer has."""
        return self.hidden[0].shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """What `values` can tell of a unit: its states, then its gates."""
        return STATES[self.cell] + GATES[self.cell]

    @cached_property
    def last_read(self) -> np.ndarray:
        """The character (tokens,) of each token that was read last."""
        return self.starts if self.model.backward else np.maximum(self.ends - 1, self.starts)

    def values(self, layer: int, name: str, unit: int | None = None) -> np.ndarray:
        """A state or a gate of a layer at each token, in the order of the text: (tokens, units), or
        (tokens,) of one `unit`. Raises UserError where there is no such thing."""
        self.check(layer, unit)
        if name not in self.names:
            raise UserError(
                f"a cell of kind {self.cell} has no {name!r}: choose one of {', '.join(self.names)}."
            )
        units = slice(None) if unit is None else slice(unit, unit + 1)
        if name in STATES[self.cell]:
            values = (self.hidden[layer] if name == "h" else self.memory(layer))[1:, units]
        else:
            count = len(self.tokens)
            windows = (slice(1 + n, 1 + min(n + _WINDOW, count)) for n in range(0, count, _WINDOW))
            values = np.concatenate([self.gates(layer, steps, units)[name] for steps in windows])
        values = values[::-1] if self.model.backward else values
        return values if unit is None else values[:, 0]

    def memory(self, layer: int) -> np.ndarray:
        """The LSTM's c of a layer (1 + tokens, units), in the order of reading, like `hidden`."""
        if layer not in self._memories:
            steps, units = self.hidden[layer].shape
            memory = np.zeros((1 + steps, units), self.hidden[layer].dtype)  # the first: of no token
            for begin in range(0, steps, _WINDOW):
                gates = self.gates(layer, slice(begin, min(begin + _WINDOW, steps)))
                written = gates["i"] * gates["g"]
                window = memory[begin : begin + len(written) + 1]
                for before, after, kept, new in zip(window, window[1:], gates["f"], written, strict=False):
                    np.multiply(kept, before, out=after)
                    after += new
            self._memories[layer] = memory[1:]
        return self._memories[layer]

    def gates(self, layer: int, steps: slice, units: slice = slice(None)) -> dict[str, np.ndarray]:
        """The gates of a layer at some steps of reading, each (steps, units)."""
        w_ih, w_hh, b_ih, b_hh = (self._of_units(w, units) for w in self.weights(layer))
        from_x = self.inputs(layer, steps) @ w_ih.T + b_ih
        from_h = self.before(layer, steps) @ w_hh.T + b_hh
        from_x, from_h = (
            torch.from_numpy(part.reshape(len(part), len(GATES[self.cell]), -1)) for part in (from_x, from_h)
        )
        if self.cell == "gru":
            r, z = torch.sigmoid(from_x[:, :2] + from_h[:, :2]).unbind(dim=1)
            values = r, z, torch.tanh(from_x[:, 2] + r * from_h[:, 2])
        else:
            i, f, g, o = (from_x + from_h).unbind(dim=1)
            values = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        return {name: value.numpy() for name, value in zip(GATES[self.cell], values, strict=True)}

    def inputs(self, layer: int, steps: slice = slice(None)) -> np.ndarray:
        """What a layer reads at some steps of reading (steps, width): the embedding, or what the layer
        below shows. Of the layer above the last, `trace.layers`, it is what the decoder reads."""
        network = self.model.network
        if layer == 0:
            return _array(network.embedding.weight)[self._ids[steps]]
        shown = self.hidden[0][steps]
        for hidden in self.hidden[1:layer]:
            shown = hidden[steps] + shown if network.config.residual else hidden[steps]
        return shown

    def before(self, layer: int, steps: slice) -> np.ndarray:
        """h of a layer as it was before each of some steps of reading (steps, units)."""
        begin, end, _ = steps.indices(len(self._ids))
        hidden = self.hidden[layer]
        return (
            hidden[begin - 1 : end - 1]
            if begin
            else np.vstack([np.zeros_like(hidden[:1]), hidden[: end - 1]])
        )

    @torch.inference_mode()
    def expected(self, token: int, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest tokens at the place of a token, the likeliest first, with probabilities."""
        network, step = self.model.network, self.step(token)
        shown = torch.from_numpy(self.inputs(self.layers, slice(step - 1, step)))
        logits = network.decode(shown.to(network.decoder.weight.device))
        best = top_logprobs(torch.log_softmax(logits, dim=-1), count)[0]
        return [(self.model.tokenizer.token_name(token), math.exp(logprob)) for token, logprob in best]

    def weights(self, layer: int) -> list[np.ndarray]:
        """The input and hidden maps' matrices and their biases, in torch's order."""
        return [_array(weight) for weight in self.model.network.recurrent.weights(layer)]

    def step(self, token: int) -> int:
        """The row of `hidden` after a token of the text."""
        return len(self.tokens) - token if self.model.backward else 1 + token

    def token_at(self, character: int) -> int:
        """The token that holds a character of the text; of several, or of none, the nearest that begins
        before it. Raises UserError for a character that is not there."""
        if not 0 <= character < len(self.text):
            raise UserError(f"the text has the characters 0 to {len(self.text) - 1}, and no {character}.")
        return max(int(np.searchsorted(self.starts, character, side="right")) - 1, 0)

    def check(self, layer: int, unit: int | None = None) -> None:
        """Raises UserError for a layer or a unit that is not there."""
        for what, number, count in (("layer", layer, self.layers), ("unit", unit, self.units)):
            if number is not None and not 0 <= number < count:
                raise UserError(f"there is no {what} {number}: they go from 0 to {count - 1}.")

    @cached_property
    def _ids(self) -> np.ndarray:
        """The tokens (1 + tokens,) in the order of reading."""
        tokens = self.tokens[::-1] if self.model.backward else self.tokens
        return np.concatenate([[self.model.start_token], tokens]).astype(np.int64)

    def _of_units(self, weight: np.ndarray, units: slice) -> np.ndarray:
        """The rows of a matrix or a bias that belong to some units, gate after gate."""
        gates = weight.reshape(-1, self.units, *weight.shape[1:])[:, units]
        return gates.reshape(-1, *weight.shape[1:])


def trace_text(
    model: LanguageModel, text: str, *, progress: Callable[[float], None] = lambda fraction: None
) -> Trace:
    """Read a text; `progress` is called with the fraction read so far. Raises UserError for an empty text
    and for one of which the model knows nothing."""
    encoded, tokens = encode_known(model.tokenizer, text)
    starts, ends = token_spans(model.tokenizer, encoded, tokens)
    ids = np.concatenate([[model.start_token], tokens[::-1] if model.backward else tokens])
    hidden = _read(model.network, ids.astype(np.int64), progress)
    return Trace(model, encoded.decode(), tokens, starts, ends, hidden)


@torch.inference_mode()
def _read(network: RecurrentLM, ids: np.ndarray, progress: Callable[[float], None]) -> list[np.ndarray]:
    """ids (steps,) -> for each layer h (steps, units) after each step."""
    config, recurrent = network.config, network.recurrent
    weight = network.embedding.weight
    hidden = [
        np.empty((len(ids), config.hidden_size), _array(weight[:0]).dtype) for _ in range(config.layers)
    ]
    states: list[State | None] = [None] * config.layers
    with torch.device("meta"):  # it lends its way of computing, and holds no weights of its own
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
    return hidden


def _array(weight: Tensor) -> np.ndarray:
    return weight.detach().cpu().numpy()
