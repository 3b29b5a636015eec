"""Writes a model as ONNX, with one native LSTM, GRU or RNN operator per layer.

inputs    tokens (batch, length) int64, h (layers, batch, hidden) and, for the LSTM, c of the same shape
outputs   logits (batch, length, vocab), new_h and new_c: the state after the last token

The first token of a text is the metadata's "start_token_id", and the state before it is zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lm
from lm.console.invocation import pip_install
from lm.errors import UserError
from lm.files.atomic import replacing, writing
from lm.language_model import LanguageModel, require_one_network
from lm.model.cells import CELLS, split_gates
from lm.model.network import RecurrentLM
from lm.storage.transformers_files import tokenizer_files

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import quant_utils, quantize_dynamic
except ImportError as error:
    needed = "exporting to ONNX needs the libraries `onnx` and `onnxruntime`"
    raise UserError(f"{needed}: {pip_install('export')}") from error

# Those of 2022, which older runtimes read, too.
_OPSET, _IR_VERSION = 17, 8
_LARGEST = 2**31 - 2**24  # bytes of weights: a protobuf message has less than 2 GB
# The order of the gates in the weights of ONNX's operators. ONNX writes c for our candidate g, h for n.
_GATES = {"rnn": "h", "gru": "zrn", "lstm": "iofg"}


def write_onnx(model: LanguageModel, path: Path, precision: str) -> None:
    """Write `model` to `path` with weights in the precision "fp32" or "int8".

    Raises UserError for an ensemble, for a model that is too large for the format, and if the file cannot be
    written.
    """
    require_one_network(model, "be exported")
    if 4 * model.network.parameter_count() > _LARGEST:
        raise UserError(
            f"cannot export to {path}: ONNX files have less than 2 GB, too little for the"
            f" {model.network.parameter_count():,} parameters of this model."
        )
    exported = onnx_model(model, precision)
    with writing(path), replacing(path) as partial:
        if precision == "int8":
            _quantize(exported, partial)
        else:
            onnx.save_model(exported, partial)


def onnx_model(model: LanguageModel, precision: str) -> onnx.ModelProto:
    """The ONNX model of `model`; for int8, what onnxruntime can quantize is still in fp32."""
    exported = helper.make_model(
        _Graph(model.network, precision).build(),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="recurrent-lm",
        producer_version=lm.__version__,
    )
    tokenizer, end = model.tokenizer, model.tokenizer.end
    metadata = {  # named as in config.json
        "start_token_id": str(model.start_token),
        "eos_token_id": "" if end is None else str(end),
        "suppress_tokens": json.dumps(model.generator.suppressed_tokens),
        "direction": model.direction.value,
        "tokenizer": tokenizer.kind,
        "tokenizer.json": tokenizer_files(tokenizer)["tokenizer.json"],
    }
    helper.set_model_props(exported, metadata)
    return exported


class _Graph:
    """The graph of a network: nodes and weights, collected while it is built. Values go by their names."""

    def __init__(self, network: RecurrentLM, precision: str):
        self.network, self.config = network, network.config
        # onnxruntime has an int8 operator for the LSTM only.
        self.store_matrix = self._weight if precision == "fp32" or self.config.cell == "lstm" else self._int8
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def build(self) -> onnx.GraphProto:
        config, states = self.config, CELLS[self.config.cell].states
        one_layer = self._weight("one_layer", np.ones(config.layers, np.int64))
        initial = []
        for part in states:
            names = [f"{part}_{layer}" for layer in range(config.layers)]
            initial.append(self._node("Split", [part, one_layer], names, axis=0))
        x, finals = self._embedded(), []
        for layer, state in enumerate(zip(*initial, strict=True)):
            below = x
            x, final = self._layer(layer, x, list(state))
            if config.residual and layer > 0:
                (x,) = self._node("Add", [x, below], [f"residual_{layer}"])
            finals.append(final)
        for part, parts in zip(states, zip(*finals, strict=True), strict=True):
            self._node("Concat", list(parts), [f"new_{part}"], axis=0)
        self._decode(x)
        value, float32 = helper.make_tensor_value_info, TensorProto.FLOAT
        vocab = self.network.vocab_size
        state_shape: list[int | str | None] = [config.layers, "batch", config.hidden_size]
        inputs = [value("tokens", TensorProto.INT64, ["batch", "length"])]
        outputs = [value("logits", float32, ["batch", "length", vocab])]
        inputs += [value(part, float32, state_shape) for part in states]
        outputs += [value(f"new_{part}", float32, state_shape) for part in states]
        return helper.make_graph(self.nodes, "recurrent_lm", inputs, outputs, self.weights)

    def _embedded(self) -> str:
        """The vectors of the tokens (length, batch, embedding)."""
        if self.config.tie:  # columns of the decoder's matrix, which is stored once
            decoder = self._weight("decoder", self.network.decoder.weight.t())
            (columns,) = self._node("Gather", [decoder, "tokens"], ["columns"], axis=1)
            return self._node("Transpose", [columns], ["embedded"], perm=[2, 1, 0])[0]
        embedding = self._weight("embedding", self.network.embedding.weight)
        (rows,) = self._node("Gather", [embedding, "tokens"], ["rows"])
        return self._node("Transpose", [rows], ["embedded"], perm=[1, 0, 2])[0]

    def _layer(self, layer: int, x: str, state: list[str]) -> tuple[str, list[str]]:
        """x (length, batch, input), state of (1, batch, hidden) -> hidden states (length, batch, hidden),
        final state."""
        cell = self.config.cell
        w_ih, w_hh, *biases = (_reordered(cell, weight) for weight in self.network.recurrent.weights(layer))
        weights = [
            self.store_matrix(f"input_map_{layer}", w_ih[None]),
            self.store_matrix(f"hidden_map_{layer}", w_hh[None]),
            self._weight(f"biases_{layer}", torch.cat(biases)[None]),
        ]
        every_length = ""  # the optional input sequence_lens
        settings = {"linear_before_reset": 1} if cell == "gru" else {}
        outputs, *final = self._node(
            cell.upper(),
            [x, *weights, every_length, *state],
            [f"outputs_{layer}", *(f"new_{part}" for part in state)],
            hidden_size=self.config.hidden_size,
            **settings,
        )
        direction = self._weight(f"direction_{layer}", np.array([1]))
        return self._node("Squeeze", [outputs, direction], [f"hidden_{layer}"])[0], final

    def _decode(self, hidden: str) -> None:
        """The logits of hidden (length, batch, hidden)."""
        (x,) = self._node("Transpose", [hidden], ["hidden"], perm=[1, 0, 2])
        if self.network.projection is not None:
            projection = self._weight("projection", self.network.projection.weight.t())
            (x,) = self._node("MatMul", [x, projection], ["projected"])
        if not self.config.tie:
            self._weight("decoder", self.network.decoder.weight.t())
        (products,) = self._node("MatMul", [x, "decoder"], ["products"])
        self._node("Add", [products, self._weight("decoder_bias", self.network.decoder.bias)], ["logits"])

    def _node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def _weight(self, name: str, values: Tensor | np.ndarray) -> str:
        if isinstance(values, Tensor):
            values = values.detach().cpu().contiguous().numpy()
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def _int8(self, name: str, matrix: Tensor) -> str:
        """A matrix (1, rows, columns) stored as int8 with a scale for each row. onnxruntime multiplies them
        once, when it loads the model."""
        scales = matrix.abs().amax(2, keepdim=True).clamp(min=1e-30) / 127
        stored = self._weight(f"{name}_int8", (matrix / scales).round().to(torch.int8))
        (whole,) = self._node("Cast", [stored], [f"{name}_whole"], to=TensorProto.FLOAT)
        return self._node("Mul", [whole, self._weight(f"{name}_scales", scales)], [name])[0]


def _reordered(cell: str, weight: Tensor) -> Tensor:
    """weight (gates * hidden, ...), a matrix or bias, with the gates in ONNX's order."""
    blocks = split_gates(cell, weight, dim=0)
    return torch.cat([blocks[gate] for gate in _GATES[cell]])


def _quantize(exported: onnx.ModelProto, path: Path) -> None:
    """Write a model to `path` with its other matrices quantized to int8 by onnxruntime."""
    quant_utils.add_pre_process_metadata(exported)  # there is nothing to infer or fuse; it would warn
    # With a reduced range, no sum overflows on CPUs that add two products in 16 bits (AVX2 without VNNI).
    quantize_dynamic(exported, path, per_channel=True, reduce_range=True)
