"""Muon: steepest descent for matrices, measured by how far they can stretch a vector.

The momentum of each matrix is replaced by a matrix of the same singular vectors whose singular values
are all about one, so that rare directions learn as fast as common ones (Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks"). The size of the step is scaled as in Liu et al. 2025
(arXiv:2502.16982), so that rates and decays mean about what they do for AdamW.
"""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor

from lm.distributed import ALONE, Ranks

# Coefficients of x -> a x + b x³ + c x⁵, one row an iteration, that bring small singular values up
# fastest (Amsel et al. 2025, "The Polar Express", arXiv:2505.16932). The paper has more rows. After
# these three the values lie between 0.2 and 1.9, and bringing them closer to one gained nothing.
_POLYNOMIALS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
_MOMENTUM = 0.95
_LARGEST = 1.01  # the polynomials are made for values up to one; the room is for rounding


class QuickStart:
    """torch's optimisers, without the compiler that they import when they are made: a second of every
    start, for a decorator that keeps it away from them."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Muon(QuickStart, torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay. All parameters are matrices.

    `precision` is the type the products are computed in: bf16 is enough where it is fast. Of several
    `ranks` each orthogonalises some of the matrices for all.
    """

    def __init__(
        self,
        matrices: list[Tensor],
        lr: float,
        weight_decay: float,
        precision: torch.dtype,
        ranks: Ranks = ALONE,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self.precision, self._ranks = precision, ranks

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients that are there."""
        (group,) = self.param_groups
        weights = group["params"]
        ahead = [self._ahead(weight) for weight in weights]
        updates = self._ranks.shared_out(
            lambda number: orthogonalised(ahead[number]),
            like=ahead,
            costs=[min(matrix.shape) * matrix.numel() for matrix in ahead],
        )
        for weight, update in zip(weights, updates, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))

    def _ahead(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
        return weight.grad.lerp(momentum, _MOMENTUM).to(self.precision)


def orthogonalised(matrix: Tensor) -> Tensor:
    """matrix (m, n) -> (m, n) with the same singular vectors and singular values of about one."""
    wide = len(matrix) <= matrix.shape[1]
    x = matrix if wide else matrix.t().contiguous()  # the small products are those of the short side
    x = x / (x.norm() * _LARGEST + 1e-7)
    for a, b, c in _POLYNOMIALS:
        square = x @ x.t()
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.t()
