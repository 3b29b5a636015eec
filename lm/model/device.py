"""Where to compute and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from lm.errors import UserError


def choose_device(name: str) -> torch.device:
    """'auto' -> CUDA, else Apple's MPS, else the CPU. Raises UserError where it is not there."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    if not there.get(name, False):
        raise UserError(f"--device {name}: this machine has none; --device auto takes what is there.")
    return torch.device(name)


def widest_float(device: torch.device) -> torch.dtype:
    """The type to add up many numbers in: float64, which Apple's MPS lacks."""
    return torch.float32 if device.type == "mps" else torch.float64


PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """'auto' -> bf16 where the hardware multiplies it fast, else fp16 where it does that, else fp32.
    Raises UserError for fp16 anywhere but on a GPU."""
    if name == "auto":
        name = "bf16" if _bf16_is_fast(device) else "fp16" if _fp16_is_fast(device) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise UserError("--precision fp16 is for CUDA GPUs; --precision auto takes what is fast here.")
    return next(dtype for dtype, known in PRECISIONS.items() if known == name)


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        # Older torch cannot tell; float32 is always right.
        features = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return False


def _fp16_is_fast(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)  # Volta, Turing


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Compute matrix products in `precision` inside the block; float32 changes nothing."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
