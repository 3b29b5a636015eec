"""The recurrent layers used for training: fast on every machine, with the regularizers of AWD-LSTM.

`lm/model/cells.py` defines what a layer computes. Here each layer is computed in one of three ways, equal
up to rounding: by the readable cells themselves, by torch's fused kernels (cuDNN on a GPU, oneDNN for a
small LSTM on a CPU), or by `lm/model/cpu_kernels.py` where torch's are slow.

On a GPU, `cudnn_layer` casts everything to the precision of the products itself: autocast would run cuDNN's
layers in float16 whatever its own precision (torch 2.11).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lm.config.resolved import NetworkConfig
from lm.model import onednn
from lm.model.cells import CELLS, RecurrentStack, State
from lm.model.cpu_kernels import cpu_layer, product_dtype

LARGE = 512  # hidden units from which our LSTM is faster than oneDNN's
# Without AVX-512, oneDNN's trains 4 to 10% faster even at 512 to 1024 units (2026-11-29).
_ONLY_AVX2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
# cuDNN rejects sequences of 111,539 steps, but not of 2,048 (H200, torch 2.11+cu130, 2026-11-27).
CUDNN_STEPS = 2048

# A version of cuDNN that expects another layout copies the weights, which only takes time.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")


class RecurrentLayers(nn.Module):
    """Stacked layers whose weights have the names and shapes of torch.nn.LSTM's.

    In training, `dropout` drops units between the layers and `weight_dropout` drops entries of the
    recurrent matrices (DropConnect on hidden-to-hidden weights, one mask for all steps of a window;
    Merity et al. 2017, arXiv:1708.02182).
    """

    def __init__(self, config: NetworkConfig, input_size: int):
        super().__init__()
        self.config = config
        hidden, rows = config.hidden_size, len(CELLS[config.cell].gates) * config.hidden_size
        for layer in range(config.layers):
            for name, shape in (
                ("weight_ih", (rows, hidden if layer else input_size)),
                ("weight_hh", (rows, hidden)),
                ("bias_ih", (rows,)),
                ("bias_hh", (rows,)),
            ):
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.zeros(shape)))

    def weights(self, layer: int) -> list[Tensor]:
        """[w_ih, w_hh, b_ih, b_hh]: matrices (gates * hidden, input or hidden) and their biases."""
        return [getattr(self, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def zero_state(self, like: Tensor, batch: int) -> State:
        """The state before a text: (layers, batch, hidden), with the type and on the device of `like`."""
        zeros = like.new_zeros(self.config.layers, batch, self.config.hidden_size)
        return (zeros,) * len(CELLS[self.config.cell].states)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (time, batch, input), state of (layers, batch, hidden) -> hidden states of the last layer
        (time, batch, hidden), final state."""
        config, finals = self.config, []
        state = self.zero_state(x, x.shape[1]) if state is None else state
        for layer in range(config.layers):
            below = x
            if layer > 0:
                x = drop(x, config.dropout, config.locked_dropout, self.training)
            w_ih, w_hh, *biases = self.weights(layer)
            w_hh = F.dropout(w_hh, config.weight_dropout, self.training)
            x, final = self._layer(x, tuple(part[layer] for part in state), [w_ih, w_hh, *biases])
            if config.residual and layer > 0:
                x = x + below
            finals.append(final)
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _layer(self, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
        cell, fused = self.config.cell, fused_kernel(self.config.cell)
        if self.config.cell_implementation == "reference":
            return reference_layer(cell, x, state, weights)
        large = self.config.hidden_size >= LARGE and not _ONLY_AVX2
        slow = cell != "lstm" or large or _lacks_lstm(x)
        if x.device.type == "cpu" and (slow or fused is None):
            return cpu_layer(cell, x, state, weights)
        if fused is None:
            return reference_layer(cell, x, state, weights)
        if x.device.type == "cuda":
            return cudnn_layer(cell, x, state, weights)
        batched = tuple(part[None] for part in state)
        initial = batched if cell == "lstm" else batched[0]
        out, *final = fused(x, initial, weights, True, 1, 0.0, self.training, False, False)
        return out, tuple(part[0] for part in final)


def fused_kernel(cell: str) -> Callable[..., Any] | None:
    """torch's function behind nn.RNN, nn.GRU or nn.LSTM. It is private: None where torch lacks it."""
    name = {"rnn": "rnn_tanh", "gru": "gru", "lstm": "lstm"}[cell]
    return getattr(getattr(torch, "_VF", None), name, None)


def cudnn_layer(cell: str, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    """One layer computed by torch's fused kernel in the precision of matrix products, with arguments and
    results as for `cpu_layer`."""
    dtype, kernel = product_dtype(x), fused_kernel(cell)
    assert kernel is not None  # `_layer` has looked
    x, weights = x.to(dtype), one_buffer(weights, dtype)
    parts = [part.to(dtype).contiguous()[None] for part in state]
    # cuDNN computes gradients only in its training mode. That mode differs in its own dropout, which is 0.
    learn, outputs = torch.is_grad_enabled(), []
    with torch.autocast(x.device.type, enabled=False):
        for steps in x.split(CUDNN_STEPS) if len(x) > CUDNN_STEPS else (x,):
            initial = parts if cell == "lstm" else parts[0]
            out, *parts = kernel(steps, initial, weights, True, 1, 0.0, learn, False, False)
            outputs.append(out)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs), tuple(part[0] for part in parts)


def one_buffer(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies of [w_ih, w_hh, b_ih, b_hh] in `dtype` that follow each other in memory, from the start of a
    storage of exactly this size.

    This is cuDNN's layout of a layer without projection. torch's `try_get_weight_buf` (RNN.cpp) compares
    these addresses; if one differs, the kernel copies the weights again and warns.
    """
    flat = torch.cat([weight.flatten() for weight in weights]).to(dtype)
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _lacks_lstm(x: Tensor) -> bool:
    """Whether torch's LSTM would fail on this CPU, because it leaves bfloat16 to oneDNN."""
    return product_dtype(x) == torch.bfloat16 and not onednn.supports(torch.bfloat16)


def reference_layer(cell: str, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    """One layer computed by the readable cells, with arguments and results as for `cpu_layer`."""
    with torch.device("meta"):  # without weights of its own
        stack = RecurrentStack(cell, weights[0].shape[1], weights[1].shape[1])
    names = ("input_map.weight", "hidden_map.weight", "input_map.bias", "hidden_map.bias")
    parameters = {f"cells.0.{name}": weight for name, weight in zip(names, weights, strict=True)}
    initial = tuple(part[None] for part in state)
    out, final = functional_call(stack, parameters, (x.transpose(0, 1), initial))
    return out.transpose(0, 1), tuple(part[0] for part in final)


def drop(x: Tensor, probability: float, locked: bool, training: bool) -> Tensor:
    """Dropout on x (time, batch, units). If `locked`, a unit dropped at one step is dropped at every step of
    the window (variational dropout; Gal & Ghahramani 2016, arXiv:1512.05287)."""
    if not training or probability == 0:
        return x
    if not locked:
        return F.dropout(x, probability)
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), probability)
