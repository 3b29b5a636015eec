"""Decoders predict the next token step by step, for many sequences at a time.

They know tokens, not text. (`network.decoder` is something else: the output layer.) A prompt is read by the
network itself, in chunks; after that a batch (lm/generation/cpu_batch.py, lm/generation/gpu_batch.py)
computes one step after another. Its results equal those of the network's forward pass, as a test verifies.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lm.errors import UserError
from lm.generation.cpu_batch import CPUBatch, CPUWeights
from lm.generation.gpu_batch import GPUBatch, GPUWeights
from lm.model.cell_step import AfterLayer
from lm.model.cells import State
from lm.model.device import Precision, autocast
from lm.model.network import RecurrentLM

PREFILL_CHUNK = 256  # prompt tokens read at a time; larger chunks would delay the other sequences


class Batch(Protocol):
    """Sequences that advance together, one per row. The result for a row depends on no other row."""

    @property
    def count(self) -> int:
        """The number of rows."""

    def add(self, state: State) -> None:
        """Add a sequence in this state (layers, 1, hidden) as the last row."""

    def remove(self, row: int) -> None:
        """Remove a sequence; the last row takes its place."""

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row can be selected several times."""

    def state(self, row: int) -> State:
        """A copy of the state (layers, 1, hidden) of a row."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token in each row: tokens (count,) int64 -> logits (count, vocab) float32."""


class Decoder(Protocol):
    """A model, or an ensemble of models, that predicts the next token."""

    @property
    def device(self) -> torch.device:
        """The device of tokens and logits."""

    @property
    def sampling_weights(self) -> GPUWeights | None:
        """The weights for sampling on a GPU (lm/generation/gpu_sampling.py). None: a batch computes logits,
        from which the host samples."""

    def initial_state(self) -> State:
        """The state (layers, 1, hidden) before any token."""

    def prefill(self, tokens: Tensor, state: State) -> State:
        """The state after reading up to PREFILL_CHUNK more tokens (time,) int64."""

    def fingerprint(self) -> str:
        """Identifies the weights: a saved state can be loaded only by a model with the same fingerprint."""

    def batch(self) -> Batch:
        """An empty batch."""


class NetworkDecoder:
    """The decoder of one network.

    When the first sequence starts, the weights are copied in `precision` (fp32, bf16, fp16 on a GPU, int8
    on a CPU): training the network further does not change them. Raises UserError for int8 on a GPU.
    """

    def __init__(self, network: RecurrentLM, precision: str = "fp32"):
        self._network, self.config = network, network.config
        self.device = network.device
        if precision == "int8" and self.device.type != "cpu":
            raise UserError("--precision int8 requires a CPU; use bf16 on a GPU.")
        self._precision = precision

    def __reduce__(self) -> tuple[type[NetworkDecoder], tuple[RecurrentLM, str]]:
        """For copies and pickles: the weights in `precision` are not part of them."""
        return NetworkDecoder, (self._network, self._precision)

    def initial_state(self) -> State:
        """The state (layers, 1, hidden) before any token."""
        return self._network.recurrent.zero_state(self._network.embedding.weight, 1)

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, state: State) -> State:
        """The state after reading up to PREFILL_CHUNK more tokens (time,) int64."""
        network = self._network
        was_training = network.training
        network.eval()
        precision = Precision.FP32 if self._precision == "int8" else Precision(self._precision)
        with autocast(self.device, precision):
            _, state = network.hidden_states(tokens[None].to(self.device), state)
        network.train(was_training)
        return tuple(part.float() for part in state)

    def fingerprint(self) -> str:
        """Identifies the weights: a saved state can be loaded only by a model with the same fingerprint."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._network.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def batch(self, after_layer: AfterLayer | None = None) -> Batch:
        """An empty batch; `after_layer` may change the new state of each layer in a step."""
        if self.device.type == "cpu":
            return CPUBatch(self._cpu_weights, after_layer)
        return GPUBatch(self._gpu_weights, after_layer)

    @property
    def sampling_weights(self) -> GPUWeights | None:
        """The weights for sampling on a CUDA GPU."""
        return self._gpu_weights if self.device.type == "cuda" else None

    @cached_property
    def _cpu_weights(self) -> CPUWeights:
        return CPUWeights(self._network, self._precision)

    @cached_property
    def _gpu_weights(self) -> GPUWeights:
        return GPUWeights(self._network, self._precision)
