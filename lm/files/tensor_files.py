"""Reads and writes safetensors files, which anyone may have made."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lm.errors import ModelError, one_line
from lm.files.model_files import open_file

# In the order of a safetensors file.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}
_FLOATS = {"F64", "F32", "BF16", "F16"}
_MAX_HEADER = 8 << 20  # bytes of a safetensors file before its numbers; 130 a tensor are usual


def tensor_shapes(path: Path) -> dict[str, torch.Size]:
    """The shapes of the weights in a safetensors file, which contains as many numbers as they say.

    Raises ModelError if it is missing, damaged or too large for this machine, or contains anything but
    floating-point numbers.
    """
    with _open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: torch.Size(part.get_shape()) for name, part in slices.items()}
        kinds = {part.get_dtype() for part in slices.values()}
    if wrong := kinds - _FLOATS:
        raise ModelError(f"{path} is damaged: it has numbers of type {one_line(min(wrong), 20)}.")
    return shapes


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ModelError if it is missing or damaged."""
    with _open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises ModelError if it is missing or damaged."""
    with _open_tensors(path) as file:
        return file.metadata() or {}


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write a safetensors file, tensor by tensor, and return its SHA-256.

    Its bytes are those of `safetensors.torch.save`, which holds them in memory twice. The files of
    `save_file` may be read only by their owner, and its error does not say that the disk is full.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = list(_DTYPES)
    ordered = sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    described = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    described += b" " * (-len(described) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def write(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)

        write(len(described).to_bytes(8, "little") + described)
        for _, tensor in ordered:
            # Copied first: a tensor of one number can have a stride that `view(torch.uint8)` rejects.
            flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
            flat.view(tensor.shape).copy_(tensor.detach())
            write(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises ModelError, also for errors in the block."""
    try:
        with open_file(path, path.parent) as file:
            header, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if (memory := _physical_memory()) and size > memory:
            raise ModelError(
                f"{path} is {size / 1e9:,.1f} GB, but this machine has {memory / 1e9:,.1f} GB of memory."
            )
        if header > _MAX_HEADER:
            raise ModelError(f"{path} is damaged or truncated: its header has {header:,} bytes.")
        real = os.path.realpath(path)
        if os.fsencode(real) != real.encode("utf-8", "replace"):  # safetensors cannot open it
            raise ModelError(f"{path} cannot be read: its path has a name that is not UTF-8; rename it.")
        with safe_open(real, "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, MemoryError) as error:
        raise ModelError(f"{path} is damaged or truncated: {one_line(error)}") from error


def _physical_memory() -> int | None:
    """Bytes; None if the system does not say."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
