"""Clamps: hidden units that are held at a fixed value while a network reads and generates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.generation.decoder import Batch, NetworkDecoder
from lm.generation.request import whole_number
from lm.model.cell_step import Array, output_gate
from lm.model.cells import CELLS, State


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

    def check(self, config: ModelConfig) -> None:
        """Raise UserError for a unit that a network with this configuration does not have, or a value that
        the unit cannot have."""
        assert isinstance(config.hidden_size, int)  # that of a network is never "auto"
        sizes = ("layer", self.layer, config.layers), ("unit", self.unit, config.hidden_size)
        for name, number, count in sizes:
            if not 0 <= whole_number(f"{name} of a clamp", number) < count:
                raise UserError(f"{name} of a clamp must be between 0 and {count - 1}, got {number}.")
        if self.state not in (states := CELLS[config.cell].states):
            raise UserError(
                f"the {config.cell} cell has no state {self.state!r} to clamp: choose {' or '.join(states)}."
            )
        if not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise UserError(f"the value of a clamp must be a finite number, got {self.value!r}.")
        if self.state == "h" and abs(self.value) > 1:
            raise UserError(f"h is always between -1 and 1 and cannot be clamped to {self.value:g}.")


class ClampedDecoder:
    """A decoder whose steps clamp units; see `Decoder`. It shares the weights of the one it is made from.

    A prompt is read token by token, because the fast layers have no place for clamps. Raises UserError if a
    clamp does not fit the network, or if two clamp the same state.
    """

    sampling_weights = None  # on a GPU, steps with clamps are computed without a CUDA graph

    def __init__(self, decoder: NetworkDecoder, clamps: Sequence[Clamp]):
        for clamp in clamps:
            clamp.check(decoder.config)
        states = [(clamp.layer, clamp.unit, clamp.state) for clamp in clamps]
        for layer, unit, state in states:
            if states.count((layer, unit, state)) > 1:
                raise UserError(f"{state} of unit {unit} in layer {layer} is clamped twice.")
        self._decoder, self.clamps = decoder, tuple(clamps)
        self.device = decoder.device
        self._clamp_layers = _ClampLayers(self.clamps)

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
        return self._decoder.batch(self._clamp_layers)


class _ClampLayers:
    """Clamps the new state of a layer in place; an `AfterLayer` of lm/model/cell_step.py."""

    def __init__(self, clamps: Sequence[Clamp]):
        self._clamps = sorted(clamps, key=lambda clamp: clamp.state)  # h after c, which sets it, too

    def __call__(self, layer: int, gates: Array, state: Sequence[Array] | Array) -> None:
        for clamp in self._clamps:
            if clamp.layer != layer:
                continue
            if clamp.state == "c":
                h, c = state[0][:, clamp.unit], state[1][:, clamp.unit]
                c[:] = clamp.value
                h[:] = output_gate(gates)[:, clamp.unit] * (
                    np.tanh(c) if isinstance(c, np.ndarray) else c.tanh()
                )
            else:
                state[0][:, clamp.unit] = clamp.value
