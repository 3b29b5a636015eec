"""Matrix products of a few rows with weights that stay: what a decoding step on a CPU is made of.

A product maps rows (n, inputs) to rows (n, outputs), both float32. What comes out for a row does not
depend, to the last bit, on how many rows are beside it: a stream writes the same alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Product = Callable[[Tensor], np.ndarray]

PRECISIONS = ("fp32", "bf16", "int8")
_BLOCK = 8
_ROWS = 32  # for which oneDNN lays the weights out


def product(weight: Tensor, bias: Tensor, precision: str, largest: float | None = None) -> Product:
    """rows -> rows @ weight.T + bias, with weight (outputs, inputs) and bias (outputs,) copied and kept
    in `precision`: fp32, bf16 or int8. `largest`: no number in the rows is larger, if that is known."""
    if precision == "int8":
        return _int8(weight, bias, largest)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    weight, bias = weight.to(dtype, copy=True).contiguous(), bias.to(dtype, copy=True)
    return _packed(weight, bias) or _in_blocks(weight, bias)


def _packed(weight: Tensor, bias: Tensor) -> Product | None:
    """By oneDNN, which lays the weights out once and multiplies a single row as fast as memory brings
    them; None where it is not there, or where rows come out otherwise alone than among others."""
    linear, laid_out = _onednn(weight)
    if linear is None:
        return None

    def multiply(rows: Tensor) -> np.ndarray:
        return linear(rows.to(weight.dtype), laid_out, bias, "none", [], "").float().numpy()

    many = torch.randn(3 * _BLOCK, weight.shape[1], generator=torch.Generator().manual_seed(0))
    together = multiply(many)
    for count in (1, 2, 3, 4, 7, 16):
        if not np.array_equal(multiply(many[:count].clone()), together[:count]):
            return None
    return multiply


def _onednn(weight: Tensor) -> tuple[Callable[..., Tensor] | None, Tensor | None]:
    """oneDNN's product and the weights in its layout."""
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        return torch.ops.mkldnn._linear_pointwise.default, laid_out
    except (AttributeError, RuntimeError):  # another build of torch
        return None, None


def _in_blocks(weight: Tensor, bias: Tensor) -> Product:
    """By whatever torch was built with. Such libraries take other paths, which round differently, for
    other numbers of rows: rows are always multiplied in blocks of so many."""

    def multiply(rows: Tensor) -> np.ndarray:
        count = len(rows)
        rows = F.pad(rows.to(weight.dtype), (0, 0, 0, -count % _BLOCK))
        parts = [F.linear(block, weight, bias) for block in rows.split(_BLOCK)]
        return torch.cat(parts)[:count].float().numpy()

    return multiply


def _int8(weight: Tensor, bias: Tensor, largest: float | None) -> Product:
    """Whole numbers of a byte, with a scale for each row of the weights, and for what comes in: one for
    all, or each row's own. Sums of whole numbers are exact, whatever the order."""
    scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
    columns = (weight / scale[:, None]).round().to(torch.int8).t()
    bias = bias.clone()
    if largest is not None:
        scale *= largest / 127

    def multiply(rows: Tensor) -> np.ndarray:
        whole = rows.numpy()
        size = largest or np.maximum(np.abs(whole).max(axis=1, keepdims=True), 1e-12)
        whole = whole * (127 / size)
        sums = torch._int_mm(torch.from_numpy(np.rint(whole, out=whole).astype(np.int8)), columns).float()
        if largest is None:
            sums *= torch.from_numpy(size / 127)
        return torch.addcmul(bias, sums, scale).numpy()

    return multiply
