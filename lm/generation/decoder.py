"""The decoder: a network made ready to be run step by step, many streams at a time.

It knows tokens, not text. A prompt is read by the network itself, a window at a time; after that a batch
(lm/generation/cpu_batch.py, lm/generation/gpu_batch.py) makes one step after the other. What it computes
is the network's forward pass: a test holds them together.
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
from lm.model.cells import CELLS, State
from lm.model.device import PRECISIONS, autocast
from lm.model.network import RecurrentLM

PREFILL_CHUNK = 256  # tokens of a prompt that are read without a break; more would keep the others waiting


class Batch(Protocol):
    """Streams side by side, a row each. What a row computes depends on no other."""

    count: int

    def add(self, state: State) -> None:
        """A stream in this state (layers, 1, hidden), as the last row."""

    def remove(self, row: int) -> None:
        """Take a stream out; the last row moves into its place."""

    def select(self, rows: list[int]) -> None:
        """Go on with these of the rows, in this order; a row may be named several times."""

    def state(self, row: int) -> State:
        """A copy of a stream's state (layers, 1, hidden)."""

    def step(self, tokens: Tensor) -> Tensor:
        """tokens (count,) int64 -> logits (count, vocab) float32."""


class Decoder(Protocol):
    """One model or several that predict the next token."""

    device: torch.device

    def initial_state(self) -> State:
        """The state (layers, 1, hidden) before anything was read."""

    def prefill(self, tokens: Tensor, state: State) -> State:
        """The state after reading up to PREFILL_CHUNK more tokens (time,) int64."""

    def fingerprint(self) -> str:
        """Equal for equal weights only: identifies whose states these are."""

    def batch(self) -> Batch:
        """An empty batch."""


class NetworkDecoder:
    """The weights are copied when the first batch is made, in `precision` (fp32, bf16, fp16 on a GPU,
    int8 on a CPU): training the network further does not change them."""

    def __init__(self, network: RecurrentLM, precision: str = "fp32"):
        self._network = network
        self.device = network.embedding.weight.device
        if precision == "int8" and self.device.type != "cpu":
            raise UserError("--precision int8 is for CPUs; on a GPU take bf16.")
        self._precision = precision

    def initial_state(self) -> State:
        """The state (layers, 1, hidden) before anything was read."""
        config = self._network.config
        zeros = torch.zeros(config.layers, 1, config.hidden_size, device=self.device)
        return (zeros,) * len(CELLS[config.cell].states)

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, state: State) -> State:
        """The state after it has read at most PREFILL_CHUNK tokens (time,) int64 more."""
        network = self._network
        was_training = network.training
        network.eval()
        dtypes = {name: dtype for dtype, name in PRECISIONS.items()}
        with autocast(self.device, dtypes.get(self._precision, torch.float32)):
            _, state = network.hidden_states(tokens[None].to(self.device), state)
        network.train(was_training)
        return tuple(part.float() for part in state)

    def fingerprint(self) -> str:
        """The same for the same weights alone: whose states these are."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._network.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def batch(self) -> Batch:
        """A batch without any stream yet."""
        kind = CPUBatch if self.device.type == "cpu" else GPUBatch
        return kind(self._weights)

    @cached_property
    def _weights(self) -> CPUWeights | GPUWeights:
        kind = CPUWeights if self.device.type == "cpu" else GPUWeights
        return kind(self._network, self._precision)
