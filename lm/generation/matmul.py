"""Linear maps of a few rows with constant weights, on a CPU: most of the work of a generation step.

A map takes rows (n, inputs) to rows (n, outputs), all float32. The result for a row does not depend, to the
last bit, on the other rows: a sequence is generated identically alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm.model import onednn

Linear = Callable[[Tensor], np.ndarray]

_BLOCK = 8


def pack_linear(weight: Tensor, bias: Tensor, precision: str, bound: float | None = None) -> Linear:
    """The map rows -> rows @ weight.T + bias with weight (outputs, inputs) and bias (outputs,) copied and
    stored in `precision`: fp32, bf16 or int8. `bound` limits the absolute value of the inputs, if known."""
    if precision == "int8":
        return _int8(weight, bias, bound)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    weight, bias = weight.to(dtype, copy=True).contiguous(), bias.to(dtype, copy=True)
    return _packed(weight, bias) or _in_blocks(weight, bias)


def _packed(weight: Tensor, bias: Tensor) -> Linear | None:
    """By oneDNN, which multiplies a single row as fast as memory delivers the weights. None if it is not
    available or computes a row differently alone than in a batch."""
    linear = onednn.packed_linear(weight, bias, onednn.ROWS)
    if linear is None or not onednn.rows_are_independent(linear, weight):
        return None
    return lambda rows: linear(rows.to(weight.dtype)).float().numpy()


def _in_blocks(weight: Tensor, bias: Tensor) -> Linear:
    """By the library that torch was built with. Such libraries choose kernels, which round differently, by
    the number of rows: rows are always multiplied in blocks of the same size."""

    def multiply(rows: Tensor) -> np.ndarray:
        count = len(rows)
        rows = F.pad(rows.to(weight.dtype), (0, 0, 0, -count % _BLOCK))
        parts = [F.linear(block, weight, bias) for block in rows.split(_BLOCK)]
        return torch.cat(parts)[:count].float().numpy()

    return multiply


def _int8(weight: Tensor, bias: Tensor, bound: float | None) -> Linear:
    """With 8-bit integers and a scale for each row of the weights. The inputs share one scale, given by
    `bound`, or each row has its own. Sums of integers are exact in any order."""
    scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
    columns = (weight / scale[:, None]).round().to(torch.int8).t()
    multiply_integers = _integer_product(columns)
    bias = bias.clone()
    if bound is not None:
        scale *= bound / 127

    def multiply(rows: Tensor) -> np.ndarray:
        scaled = rows.numpy()
        size = bound or np.maximum(np.abs(scaled).max(axis=1, keepdims=True), 1e-12)
        scaled = scaled * (127 / size)
        integers = torch.from_numpy(np.rint(scaled, out=scaled).astype(np.int8))
        sums = multiply_integers(integers)
        if bound is None:
            sums *= torch.from_numpy(size / 127)
        return torch.addcmul(bias, sums, scale).numpy()

    return multiply


def _integer_product(columns: Tensor) -> Callable[[Tensor], Tensor]:
    """rows (n, k) int8 -> rows @ columns as float32. torch's kernel for it is private; float64, which holds
    these sums exactly, takes its place where it is missing."""
    if hasattr(torch, "_int_mm"):
        return lambda rows: torch._int_mm(rows, columns).float()
    wide = columns.double()
    return lambda rows: (rows.double() @ wide).float()
