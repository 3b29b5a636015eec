"""Muon: steepest descent for matrices under the spectral norm.

The momentum of each matrix is orthogonalized: it keeps its singular vectors, and its singular values become
about one, so that rare directions learn as fast as common ones (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"). Updates are scaled as in Liu et al. 2025 (arXiv:2502.16982), so that
learning rates and weight decays mean about the same as for AdamW.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from lm.distributed import ALONE, Ranks

# Coefficients of x -> a x + b x³ + c x⁵, one row per iteration, that raise small singular values fastest
# (Amsel et al. 2025, "The Polar Express", arXiv:2505.16932). The paper has more rows; after these three, the
# values are between 0.2 and 1.9, and moving them closer to one brought no gain.
POLYNOMIALS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
_MOMENTUM = 0.95
_MARGIN = 1.01  # the polynomials expect values up to one; this leaves a margin for rounding


class NoCompilerImport:
    """A mixin that bypasses decorators of torch's optimizers.

    They import torch.compile when an optimizer is created, which adds a second to every start.
    """

    add_param_group: Any = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad: Any = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Muon(NoCompilerImport, torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum with decoupled weight decay. All parameters must be matrices.

    Products are computed in `precision`; bfloat16 is accurate enough. On a CPU, each of several `ranks`
    orthogonalizes some of the matrices and sends them to the others. If `stacked`, matrices of equal shape
    are computed together and the learning rate can be a tensor, as a CUDA graph requires. Nothing changes in
    a step with `found_inf`, the tensor of a loss scale, above zero.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        matrices: list[Tensor],
        lr: float,
        weight_decay: float,
        precision: torch.dtype,
        ranks: Ranks = ALONE,
        stacked: bool = False,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self.precision, self._ranks, self._stacked = precision, ranks, stacked

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the weights from their gradients."""
        if self._stacked:
            self._stacked_step()
            return
        (group,) = self.param_groups
        weights = group["params"]
        momenta = [self._nesterov(weight) for weight in weights]
        updates = self._ranks.compute_shared(
            lambda number: orthogonalized(momenta[number]),
            like=momenta,
            costs=[min(matrix.shape) * matrix.numel() for matrix in momenta],
        )
        for weight, update in zip(weights, updates, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))

    def _nesterov(self, weight: Tensor) -> Tensor:
        gradient = _gradient(weight)
        momentum = self._momentum(weight).lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(momentum, _MOMENTUM).to(self.precision)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]

    def _stacked_step(self) -> None:
        (group,) = self.param_groups
        rate: float | Tensor = group["lr"]
        learned: float | Tensor = 1 - _MOMENTUM
        if self.found_inf is not None:
            rate, learned = rate * (1 - self.found_inf), learned * (1 - self.found_inf)
        by_shape = defaultdict(list)
        for weight in group["params"]:
            by_shape[weight.shape].append(weight)
        for shape, weights in by_shape.items():
            gradients = torch.stack([_gradient(weight) for weight in weights])
            if self.found_inf is not None:
                gradients = gradients.masked_fill(self.found_inf > 0, 0.0)
            momenta = [self._momentum(weight) for weight in weights]
            after = torch.stack(momenta).lerp(gradients, learned)
            torch._foreach_copy_(momenta, after.unbind())
            updates = orthogonalized(gradients.lerp(after, _MOMENTUM), self.precision).to(gradients.dtype)
            updates = updates * (rate * 0.2 * math.sqrt(max(shape)))
            torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
            torch._foreach_sub_(weights, updates.unbind())


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # every recurrent weight takes part in every step
    return weight.grad


def orthogonalized(matrix: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """matrix (m, n) or a stack of them (matrices, m, n) -> the same shape, with the same singular vectors and
    singular values of about one. Products are computed in `precision`, by default that of the matrix."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT.contiguous()  # so that the square products are the small ones
    stacked = x.dim() > 2
    norm = x.norm(dim=(-2, -1), keepdim=True) if stacked else x.norm()
    # In this order: float16 cannot store small numbers.
    x = (x / (norm * _MARGIN + 1e-7)).to(precision or x.dtype)
    # `_factor` is faster for long matrices, but would round bfloat16 more, and was not measured on a GPU.
    if stacked or x.dtype.itemsize < 4 or x.shape[1] < 2 * x.shape[0]:
        add_product = torch.baddbmm if stacked else torch.addmm
        for a, b, c in POLYNOMIALS:
            square = x @ x.mT
            x = add_product(x, add_product(square, square, square, beta=b, alpha=c), x, beta=a)
    else:
        x = _factor(x) @ x
    return x if wide else x.mT


def _factor(x: Tensor) -> Tensor:
    """x (n, m) -> the matrix (n, n) whose product with x is what the polynomials make of x.

    All of them are odd: each is x times a polynomial of the square matrix x xᵀ, which is updated without x.
    For m = 4n, the gate weights of an LSTM, that is 17 instead of 27 products of n³ multiplications.
    """
    square, factor = x @ x.mT, None
    for number, (a, b, c) in enumerate(POLYNOMIALS, 1):
        own = torch.addmm(square, square, square, beta=b, alpha=c)
        own.diagonal().add_(a)
        factor = own if factor is None else own @ factor
        if number < len(POLYNOMIALS):
            square = own @ (square @ own)
    assert factor is not None
    return factor
