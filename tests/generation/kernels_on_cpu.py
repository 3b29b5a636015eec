"""Runs the kernels of lm/generation/gpu_kernels.cu on a CPU, with a compiler for C++."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lm.generation import gpu_kernels
from lm.generation.gpu_kernels import Kernels, options_for
from tests.model import recorded

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="needs Linux and g++"
)


def use_kernels(monkeypatch: pytest.MonkeyPatch, launch: Callable[..., None] | None = None) -> None:
    """Let GPUWeights on this CPU use the kernels, or `launch` whatever the test wants instead of them."""

    def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
        return Kernels(dtype, launch) if launch else kernels_on_cpu(dtype)

    monkeypatch.setattr("lm.generation.gpu_batch.has_kernels", lambda device: True)
    monkeypatch.setattr("lm.generation.gpu_batch.kernels_for", kernels_for)


def kernels_on_cpu(dtype: torch.dtype = torch.float32) -> Kernels:
    """The kernels, compiled for the CPU."""
    library = _library(*options_for(dtype))

    def launch(name: bytes, blocks: tuple[int, int], threads: int, arguments: Sequence[Any]) -> None:
        def run() -> None:
            addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
            assert library.launch(name, *blocks, threads, addresses) == 0, "a thread skips a __syncthreads"

        run()
        recorded.add(run)

    return Kernels(dtype, launch)


@functools.cache
def _library(*options: str) -> ctypes.CDLL:
    source, main = gpu_kernels._SOURCE, Path(__file__).with_suffix(".cpp")
    # With -Bsymbolic, `advance` is not the function of that name in the C library.
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-Wl,-Bsymbolic"]
    command += [f"-I{source.parent}", *options, str(main)]
    key = hashlib.sha256(repr([source.read_bytes(), main.read_bytes(), command]).encode()).hexdigest()
    library = Path(tempfile.gettempdir()) / f"lm-kernels-{os.getuid()}-{key[:20]}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(partial)], check=True)
        partial.rename(library)
    return ctypes.CDLL(str(library))
