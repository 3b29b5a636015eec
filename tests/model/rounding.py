"""Whether results can be the same to the last bit, however texts are grouped."""

import torch

from lm.model import onednn


def rows_are_independent(dtype):
    """Without oneDNN, and with some versions of it, products round differently for other numbers of rows."""
    weight = torch.linspace(-1, 1, 64 * 24).view(64, 24).to(dtype)
    multiply = onednn.linear(weight, None, onednn.ROWS)
    return onednn.supports(dtype) and onednn.rows_are_independent(multiply, weight)
