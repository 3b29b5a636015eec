"""oneDNN's packed matrix product on a CPU, if torch provides it.

Its operators are private to torch: if they are missing, callers use torch's public, slower product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 32  # for which weights are packed where the number of rows varies

Linear = Callable[[Tensor], Tensor]


def supports(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels for `dtype` on this CPU; bfloat16 requires AVX-512."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        try:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        except AttributeError:
            return False
    return dtype == torch.float32


def linear(weight: Tensor, bias: Tensor | None, rows: int) -> Linear:
    """A function x (n, k) -> x @ weight.T + bias for a weight (m, k) that is used for many inputs of about
    `rows` rows: packed if oneDNN supports it."""
    packed = packed_linear(weight, bias, rows) if supports(weight.dtype) else None
    return packed or (lambda x: F.linear(x, weight, bias))


def packed_linear(weight: Tensor, bias: Tensor | None, rows: int) -> Linear | None:
    """A function x (n, k) -> x @ weight.T + bias whose weight (m, k) is packed once, for inputs of about
    `rows` rows; None if torch lacks the operators."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        multiply = torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return None
    return lambda x: multiply(x, packed, bias, "none", [], "")


def rows_are_independent(multiply: Linear, weight: Tensor) -> bool:
    """Whether the product of a row with `weight` (m, k) is the same, to the last bit, alone and among other
    rows. In float32, it is with torch 2.13 but not with 2.11, whose oneDNN is older."""
    rows = torch.randn(24, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    together = multiply(rows)
    return all(torch.equal(multiply(rows[:count].clone()), together[:count]) for count in (1, 2, 3, 4, 7, 16))
