"""The recurrent layers as they are trained: fast on each machine, with the regularisers of AWD-LSTM.

`lm/model/cells.py` says what a layer computes. Here one layer is computed in one of three ways, which
agree to rounding: by the readable cells, by torch's own fused kernels (cuDNN on a GPU, oneDNN for a
small LSTM on a CPU), or by `lm/model/cpu_kernels.py` where those are slow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lm.config.schema import NetworkConfig
from lm.model.cells import CELLS, State
from lm.model.cpu_kernels import cpu_layer, onednn_multiplies, product_dtype

_GATES = {name: cell.gates for name, cell in CELLS.items()}
_TORCH = {"rnn": torch._VF.rnn_tanh, "gru": torch._VF.gru, "lstm": torch._VF.lstm}
_LARGE = 512  # units from which on oneDNN's LSTM is slower than ours


class RecurrentLayers(nn.Module):
    """Layers on top of each other. The weights have the names and shapes of torch.nn.LSTM's.

    While training, units between the layers are dropped (`dropout`), and so are entries of the
    recurrent matrices (`weight_dropout`: DropConnect on hidden-to-hidden weights, one mask for all
    the steps of a window; Merity et al. 2017, arXiv:1708.02182).
    """

    def __init__(self, config: NetworkConfig, input_size: int):
        super().__init__()
        self.config = config
        hidden, rows = config.hidden_size, _GATES[config.cell] * config.hidden_size
        for layer in range(config.layers):
            shapes = {"weight_ih": (rows, hidden if layer else input_size), "weight_hh": (rows, hidden)}
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.zeros(shape)))

    def weights(self, layer: int) -> list[Tensor]:
        """The input and hidden maps' matrices and their biases, in torch's order."""
        return [getattr(self, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (time, batch, input) -> the last layer's hidden states (time, batch, hidden), state
        after the last step: a tuple of (layers, batch, hidden)."""
        config, finals = self.config, []
        if state is None:
            zeros = x.new_zeros(config.layers, x.shape[1], config.hidden_size)
            state = (zeros,) * CELLS[config.cell].states
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
        cell = self.config.cell
        if self.config.cell_implementation == "reference":
            return _readable_layer(cell, x, state, weights)
        if x.device.type == "cpu" and (cell != "lstm" or self.config.hidden_size >= _LARGE or _lacks_lstm(x)):
            return cpu_layer(cell, x, state, weights)
        state = tuple(part[None] for part in state)
        given = state if cell == "lstm" else state[0]
        out, *final = _TORCH[cell](x, given, weights, True, 1, 0.0, self.training, False, False)
        return out, tuple(part[0] for part in final)


def _lacks_lstm(x: Tensor) -> bool:
    """Whether torch's LSTM on this CPU would fail, which leaves bfloat16 to oneDNN."""
    return product_dtype(x) == torch.bfloat16 and not onednn_multiplies(torch.bfloat16)


def _readable_layer(cell: str, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    names = ("input_map.weight", "hidden_map.weight", "input_map.bias", "hidden_map.bias")
    with torch.device("meta"):  # it holds no weights of its own
        module = CELLS[cell](weights[0].shape[1], weights[1].shape[1])
    outputs = []
    for step in x:
        state = functional_call(module, dict(zip(names, weights, strict=True)), (step, state))
        outputs.append(state[0])
    return torch.stack(outputs), state


def drop(x: Tensor, probability: float, locked: bool, training: bool) -> Tensor:
    """Dropout on x (time, batch, units). `locked`: a unit dropped at one step is dropped at every
    step of the window (variational dropout; Gal & Ghahramani 2016, arXiv:1512.05287)."""
    if not training or probability == 0:
        return x
    if not locked:
        return F.dropout(x, probability)
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), probability)
