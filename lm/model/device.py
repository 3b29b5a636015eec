"""The device and precision of computations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from lm.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called `name`; 'auto' is CUDA, else Apple's MPS, else the CPU. Raises UserError if this
    machine does not have it."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name, False):
        raise UserError(f"--device {name} is not available on this machine; use --device auto.")
    return torch.device(name)


def widest_float(device: torch.device) -> torch.dtype:
    """The dtype for sums of many numbers: float64, or float32 on Apple's MPS, which lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64


PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; 'auto' is bf16 if the hardware multiplies it fast, else fp16 if it multiplies
    that fast, else fp32. Raises UserError for fp16 without a CUDA GPU."""
    if name == "auto":
        name = "bf16" if _bf16_is_fast(device) else "fp16" if _fp16_is_fast(device) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise UserError("--precision fp16 requires a CUDA GPU; use --precision auto.")
    return next(dtype for dtype, known in PRECISIONS.items() if known == name)


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        # Without this function, unknown; float32 is always safe.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def _fp16_is_fast(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)  # Volta, Turing


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """A context in which matrix products are computed in `precision`; float32 changes nothing."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
