"""RecurrentLM: embedding -> recurrent layers -> decoder."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lm.cells import RecurrentStack, State
from lm.config import ModelConfig
from lm.errors import UserError


class RecurrentLM(nn.Module):
    """A network that reads token ids and predicts, after each, the next one.

    The recurrent state is a value that goes in and comes out of `forward`; nothing is kept in
    the module. It is a tuple of tensors (layers, batch, hidden): (h,) for RNN and GRU, (h, c)
    for LSTM.
    """

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        hidden = config.hidden_size
        width = config.embedding_size or hidden
        self.embedding = nn.Embedding(vocab_size, width)
        self.recurrent = _recurrent_layers(config, width)
        # Tied to an embedding of another width, the decoder needs a map down to that width.
        self.projection = nn.Linear(hidden, width, bias=False) if config.tie and width != hidden else None
        self.decoder = nn.Linear(width if config.tie else hidden, vocab_size)
        if config.tie:
            self.decoder.weight = self.embedding.weight
        self._initialise()

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) int64 -> logits (batch, time, vocab), state after the last token."""
        embedded = self.embedding(tokens)
        if isinstance(self.recurrent, RecurrentStack):
            hidden, state = self.recurrent(embedded, state)
        else:
            hidden, state = self._fused(embedded, state)
        return self.decode(hidden), state

    def decode(self, hidden: Tensor) -> Tensor:
        """hidden (..., hidden) -> logits (..., vocab)."""
        return self.decoder(hidden if self.projection is None else self.projection(hidden))

    def parameter_count(self) -> int:
        """The number of weights; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

    def _fused(self, embedded: Tensor, state: State | None) -> tuple[Tensor, State]:
        # torch.nn.LSTM's state is a tuple, that of RNN and GRU a bare tensor.
        if self.config.cell == "lstm":
            return self.recurrent(embedded, state)
        hidden, state = self.recurrent(embedded, None if state is None else state[0])
        return hidden, (state,)

    @torch.no_grad()
    def _initialise(self) -> None:
        hidden = self.config.hidden_size
        # Untied vectors of unit size reach the gates strongly from the first step on, which is
        # worth a plateau of a hundred steps; tied ones also make the logits and must be small.
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.decoder.weight, std=0.1 if self.config.tie else hidden**-0.5)
        nn.init.zeros_(self.decoder.bias)
        for name, weight in self.recurrent.named_parameters():
            if weight.dim() == 1:
                nn.init.zeros_(weight)
            elif _is_recurrent(name):
                for block in weight.split(hidden):
                    nn.init.orthogonal_(block)
            else:
                for block in weight.split(hidden):
                    nn.init.xavier_uniform_(block)
            if self.config.cell == "lstm" and weight.dim() == 1 and _is_recurrent(name):
                # An open forget gate lets the memory reach far from the first step on
                # (Jozefowicz et al. 2015).
                weight[hidden : 2 * hidden].fill_(1.0)


def _recurrent_layers(config: ModelConfig, input_size: int) -> nn.Module:
    dropout = config.dropout if config.layers > 1 else 0.0
    if config.cell_implementation == "reference":
        return RecurrentStack(config.cell, input_size, config.hidden_size, config.layers, dropout)
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
    return layer(input_size, config.hidden_size, config.layers, dropout=dropout, batch_first=True)


def _is_recurrent(name: str) -> bool:
    return "_hh_" in name or "hidden_map" in name


def choose_device(name: str) -> torch.device:
    """'auto' -> CUDA, else Apple's MPS, else the CPU. Raises UserError where it is not there."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    if not there.get(name, False):
        raise UserError(f"--device {name}: this machine has none; --device auto takes what is there.")
    return torch.device(name)


def widest_float(device: torch.device) -> torch.dtype:
    """The type to add up many numbers in: float64, which Apple's MPS lacks."""
    return torch.float32 if device.type == "mps" else torch.float64


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """'auto' -> bf16 where the hardware multiplies it fast, else fp32."""
    if name == "auto":
        name = "bf16" if _bf16_is_fast(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        # Older torch cannot tell; float32 is always right.
        features = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return False


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Compute matrix products in `precision` inside the block; float32 changes nothing."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
