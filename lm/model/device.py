"""The device and precision of computations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import Enum

import torch

from lm.errors import UserError


def choose_device(name: str | torch.device) -> torch.device:
    """The device called `name`; 'auto' is CUDA, else Apple's MPS, else the CPU; 'cuda:1' is the second GPU.
    Raises UserError if this machine does not have it."""
    name = str(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = ["cuda", *(f"cuda:{index}" for index in range(gpus))] if gpus else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    available += ["cpu"]
    if name == "auto":
        name = available[0]
    if name not in available:
        raise UserError(
            f"--device {name} is not available on this machine; it has {', '.join(sorted(available))}."
        )
    return torch.device(name)


def current(device: torch.device) -> AbstractContextManager:
    """A context in which `device`, if it is a GPU, is the one that torch uses where none is named."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def widest_float(device: torch.device) -> torch.dtype:
    """The dtype for sums of many numbers: float64, or float32 on Apple's MPS, which lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Precision(Enum):
    """How matrix products and recurrent layers round; the values are those of `--precision`.

    TF32 stores numbers in float32, but rounds the operands of products to 11 bits, like float16. It is a
    choice of its own: FP32 never uses it.
    """

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the operands of products are stored."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.value, torch.float32)

    @property
    def eps(self) -> float:
        """The distance from 1 to the next larger operand of a product."""
        return 2.0**-10 if self is Precision.TF32 else torch.finfo(self.dtype).eps


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision called `name`; 'auto' is bf16 if the hardware multiplies it fast, else fp16 if it
    multiplies that fast, else fp32. On a GPU whose cuDNN has no bfloat16 layers, bf16 becomes fp16.

    On a GPU, this also turns TF32 for float32 products on or off, for the whole process: torch's default is
    TF32 in recurrent layers only. Raises UserError for an unknown name, for fp16 without a CUDA GPU, and for
    tf32 without one that has it.
    """
    wanted = _wanted(name, device)
    if wanted is Precision.FP16 and device.type != "cuda":
        raise UserError("--precision fp16 requires a CUDA GPU; use --precision auto.")
    if wanted is Precision.TF32 and not _is_ampere(device):
        raise UserError("--precision tf32 requires a CUDA GPU since Ampere; use --precision auto.")
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32" if wanted is Precision.TF32 else "ieee"
        _set_float32_layers(wanted)
        if wanted is Precision.BF16 and not _cudnn_has_bf16():
            return Precision.FP16
    return wanted


def precision_facts(name: str, precision: Precision, device: torch.device) -> str:
    """What the user sees of the `precision` that was chosen for `name`: 'bf16'."""
    replaced = precision is Precision.FP16 and _wanted(name, device) is Precision.BF16
    replaced = replaced and not _cudnn_has_bf16()
    return precision.value + (" (this cuDNN has no bfloat16 layers)" if replaced else "")


def _wanted(name: str, device: torch.device) -> Precision:
    if name in (known := [precision.value for precision in Precision]):
        return Precision(name)
    if name != "auto":
        raise UserError(f"--precision must be one of auto, {', '.join(known)}, got '{name}'.")
    if _bf16_is_fast(device):
        return Precision.BF16
    return Precision.FP16 if _fp16_is_fast(device) else Precision.FP32


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cpu":
        # Without this function, unknown; float32 is always safe.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return _is_ampere(device)


def _is_ampere(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _fp16_is_fast(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)  # Volta, Turing


def _cudnn_has_bf16() -> bool:
    """Whether cuDNN has recurrent layers in bfloat16 (since 9.13). Otherwise torch would compute them step
    by step, many times slower."""
    return (torch.backends.cudnn.version() or 0) >= 91300


def _set_float32_layers(precision: Precision) -> None:
    """Let cuDNN's layers in float32 use TF32, or not. Those in bfloat16 need it, too: without it, torch keeps
    them from using tensor cores (`RNNDescriptor::set`, torch 2.11 to 2.13)."""
    fast = precision in (Precision.TF32, Precision.BF16)
    torch.backends.cudnn.rnn.fp32_precision = "tf32" if fast else "ieee"  # type: ignore[attr-defined]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which matrix products are computed in `precision`; float32 changes nothing.

    On a GPU, casts of weights are not kept for the next use: a CUDA graph would keep those of its capture.
    The setting for cuDNN's layers is not restored on exit, because the backward pass runs outside the
    context. It is set on every entry, because another model may have changed it.
    """
    if device.type == "cuda":
        _set_float32_layers(precision)
    # Within another autocast context, torch would keep casts of weights that have changed since.
    torch.clear_autocast_cache()
    return torch.autocast(
        device.type,
        precision.dtype,
        enabled=precision.dtype != torch.float32,
        cache_enabled=device.type != "cuda",
    )
