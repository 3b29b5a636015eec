"""Clamps: hidden units that are held at a fixed value while a network reads and generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real

import numpy as np
from torch import Tensor

from lm.config.schema import ModelConfig
from lm.config.settings import whole_number
from lm.errors import UserError
from lm.generation.decoder import Batch, NetworkDecoder
from lm.model.cell_step import Array, output_gate
from lm.model.cells import CELLS, State

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Clamp:
    """A unit that is held at `value`; 0 switches it off.

    Layers and units are numbered from 0. In every step, as soon as the layer has computed its new state and
    before anything reads it (the layers above, the decoder, the next step), the clamped part of the unit's
    state is replaced:

    - state "h": h' = value, which must be between -1 and 1. An LSTM still computes the unit's c', which then
      has no effect on other units.
    - state "c", of an LSTM: c' = value, and h' = o ⊙ tanh(value), with the output gate o of the step. If h is
      clamped as well, h' is the value of that clamp.

    The state before the first token is not changed: it is zero, as in training.
    """

    layer: int
    unit: int
    value: float
    state: str = "h"

    def checked(self, config: ModelConfig) -> Clamp:
        """This clamp with numbers of Python, which may have been those of NumPy. Raises UserError for a unit
        that a network with this configuration does not have, or a value that the unit cannot have."""
        assert isinstance(config.hidden_size, int)  # that of a network is never "auto"
        layer = whole_number("layer of a clamp", self.layer)
        unit = whole_number("unit of a clamp", self.unit)
        sizes = ("layer", layer, config.layers), ("unit", unit, config.hidden_size)
        for name, number, count in sizes:
            if not 0 <= number < count:
                raise UserError(f"{name} of a clamp must be between 0 and {count - 1}, got {number}.")
        if self.state not in (states := CELLS[config.cell].states):
            raise UserError(
                f"the {config.cell} cell has no state {self.state!r} to clamp: choose {' or '.join(states)}."
            )
        if not isinstance(self.value, Real) or not abs(self.value) <= _LARGEST:
            raise UserError(f"the value of a clamp must be a finite number, got {self.value!r}.")
        value = float(self.value)
        if self.state == "h" and abs(value) > 1:
            raise UserError(f"h is always between -1 and 1 and cannot be clamped to {value:g}.")
        return Clamp(layer, unit, value, self.state)


class ClampedDecoder:
    """A decoder whose steps clamp units; see `Decoder`. It shares the weights of the one it is made from.

    A prompt is read token by token, because the fast layers have no place for clamps. Raises UserError if a
    clamp does not fit the network, or if two clamp the same state.
    """

    sampling_weights = None  # on a GPU, steps with clamps are computed without a CUDA graph

    def __init__(self, decoder: NetworkDecoder, clamps: Sequence[Clamp]):
        self.clamps = tuple(clamp.checked(decoder.config) for clamp in clamps)
        states = [(clamp.layer, clamp.unit, clamp.state) for clamp in self.clamps]
        for layer, unit, state in states:
            if states.count((layer, unit, state)) > 1:
                raise UserError(f"{state} of unit {unit} in layer {layer} is clamped twice.")
        self._decoder, self.device = decoder, decoder.device
        # h after c, which sets h, too
        self._after_layer = partial(_clamp, sorted(self.clamps, key=lambda clamp: clamp.state))

    def initial_state(self) -> State:
        """The state (layers, 1, hidden) before any token."""
        return self._decoder.initial_state()

    def prefill(self, tokens: Tensor, state: State) -> State:
        """The state after reading more tokens (time,) int64."""
        batch = self.batch()
        batch.add(state)
        for token in tokens.to(self.device):
            batch.step(token[None])
        return batch.state(0)

    def fingerprint(self) -> str:
        """A string that is equal only for equal weights and clamps."""
        return f"{self._decoder.fingerprint()} with {self.clamps}"

    def batch(self) -> Batch:
        """An empty batch."""
        return self._decoder.batch(self._after_layer)


def _clamp(clamps: Sequence[Clamp], layer: int, gates: Array, state: Sequence[Array] | Array) -> None:
    """Clamp the new state of a layer in place; with `clamps`, an `AfterLayer` of lm/model/cell_step.py."""
    for clamp in clamps:
        if clamp.layer != layer:
            continue
        if clamp.state == "c":
            h, c = state[0][:, clamp.unit], state[1][:, clamp.unit]
            c[:] = clamp.value
            tanh = np.tanh(c) if isinstance(c, np.ndarray) else c.tanh()
            h[:] = output_gate(gates)[:, clamp.unit] * tanh
        else:
            state[0][:, clamp.unit] = clamp.value
