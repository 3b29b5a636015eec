"""Compiles and launches the kernels of gpu_kernels.cu.

The compiler, NVRTC, comes with torch's CUDA build. Before kernels are used, their results are compared with
those of the torch operations that they replace. If the results differ or the kernels cannot be compiled, the
torch operations are used instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm.generation.gpu_draw import DrawArguments
from lm.generation.samplers import SETTING_DTYPES

_THREADS = 256  # of a block
_MOST_THREADS = 1024  # of a block of `draw`; a power of two
_SOURCE = Path(__file__).with_suffix(".cu")
_OPTIONS = {torch.float32: [], torch.bfloat16: ["-DBF16"], torch.float16: ["-DFP16"]}
_NAMES = (b"join", b"advance", b"draw")

# Called with a kernel's name, the number of blocks (x, y) and of threads in each, and arguments of ctypes.
Launch = Callable[[bytes, tuple[int, int], int, Sequence[Any]], None]


class Kernels:
    """The kernels for products of matrices of type `dtype`; gpu_kernels.cu says what each computes."""

    def __init__(self, dtype: torch.dtype, launch: Launch):
        self._dtype, self._launch = dtype, launch

    def join(self, embedding: Tensor, tokens: Tensor, h: Tensor) -> Tensor:
        """embedding (vocab, width), tokens (rows,), h (rows, hidden) -> (rows, width + hidden), the input of
        the first layer's product."""
        (rows, hidden), width = h.shape, embedding.shape[1]
        joined = embedding.new_empty(rows, width + hidden)
        self._launch(
            b"join",
            (rows, 1),
            _THREADS,
            [
                _pointer(embedding, self._dtype),
                _pointer(tokens, torch.int64),
                _pointer(h, torch.float32),
                _pointer(joined, self._dtype),
                ctypes.c_int(width),
                ctypes.c_int(hidden),
            ],
        )
        return joined

    def advance(
        self, products: Tensor, bias: Tensor, state: Tensor, x: Tensor | None, next_h: Tensor | None
    ) -> Tensor:
        """Update the state (parts, rows, hidden) of a layer, of which `products` (rows, columns) and `bias`
        (columns,) are the grouped gates.

        Returns the layer's output (rows, hidden), to which its input x (rows, hidden) is added unless that is
        None. If there is a next layer, with the state next_h (rows, hidden), each row continues with next_h:
        (rows, 2 * hidden), the input of the next layer's product.
        """
        _, rows, hidden = state.shape
        joined = products.new_empty(rows, hidden if next_h is None else 2 * hidden)
        self._launch(
            b"advance",
            (rows, -(-hidden // _THREADS)),
            _THREADS,
            [
                _pointer(products, self._dtype),
                _pointer(bias, self._dtype),
                _pointer(state[0], torch.float32),
                _pointer(state[1] if len(state) > 1 else None, torch.float32),
                ctypes.c_void_p(None if x is None else x.data_ptr()),
                ctypes.c_int(0 if x is None else x.stride(0)),
                _pointer(next_h, torch.float32),
                _pointer(joined, self._dtype),
                ctypes.c_int(len(bias) // hidden),
                ctypes.c_int(hidden),
            ],
        )
        return joined

    def draw(self, logits: Tensor, arguments: DrawArguments) -> None:
        """The same as `draw_with_torch` of gpu_draw.py."""
        (rows, vocab_size), sampling, window = logits.shape, arguments.sampling, arguments.window
        assert rows == len(arguments.last) == arguments.tokens.shape[1]
        scratch = logits.new_empty(3, rows, vocab_size)
        masses = logits.new_empty(rows, vocab_size, dtype=torch.int64)
        passed = [
            _pointers(
                (logits, torch.float32),
                (arguments.suppressed, torch.float32),
                (arguments.uniforms, torch.float64),
                (arguments.temperatures, torch.float32),
                (arguments.step, torch.int64),
            ),
            _pointers(
                *(
                    (getattr(sampling, field.name), SETTING_DTYPES.get(field.name, torch.float32))
                    for field in dataclasses.fields(sampling)
                )
            ),
            _pointers(
                (window.counts if window else None, torch.float32),
                (window.ring if window else None, torch.int64),
                (window.next if window else None, torch.int64),
                (window.sizes if window else None, torch.int64),
            ),
            _pointers(
                (arguments.last, torch.int64),
                (arguments.tokens, torch.int64),
                (arguments.logprobs, torch.float32),
            ),
            *(_pointer(part, torch.float32) for part in scratch),
            _pointer(masses, torch.int64),
            ctypes.c_int(vocab_size),
        ]
        threads = min(2 ** (vocab_size - 1).bit_length(), _MOST_THREADS)
        self._launch(b"draw", (rows, 1), threads, passed)


def _pointer(tensor: Tensor | None, dtype: torch.dtype) -> ctypes.c_void_p:
    """The address of a tensor without gaps, or null."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.dtype == dtype and tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def _pointers(*tensors: tuple[Tensor | None, torch.dtype]) -> ctypes.Array:
    """A struct of such addresses."""
    return (ctypes.c_void_p * len(tensors))(*(_pointer(*each).value for each in tensors))


def has_kernels(device: torch.device) -> bool:
    """Whether there are kernels for a device: for NVIDIA's GPUs."""
    return device.type == "cuda" and not torch.version.hip


@functools.cache
def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The kernels for a device that has some. Raises OSError if the compiler is missing, RuntimeError if it
    fails or the driver does."""
    return Kernels(dtype, _compiled(device, options_for(dtype)))


def options_for(dtype: torch.dtype) -> list[str]:
    """The options of the compiler."""
    return [*_OPTIONS[dtype], f"-DMOST={_MOST_THREADS}"]


def _compiled(device: torch.device, options: Sequence[str]) -> Launch:
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    major, minor = torch.cuda.get_device_capability(device)
    binary = _binary([f"--gpu-architecture=sm_{major}{minor}", *options])
    context, module = ctypes.c_void_p(), ctypes.c_void_p()
    functions = {name: ctypes.c_void_p() for name in _NAMES}

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(driver, name)(*arguments):
            raise RuntimeError(f"{name} of the CUDA driver fails with status {status}")

    @contextlib.contextmanager
    def on_device() -> Iterator[None]:
        call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def launch(name: bytes, blocks: tuple[int, int], threads: int, arguments: Sequence[Any]) -> None:
        stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        with on_device():
            call("cuLaunchKernel", functions[name], *blocks, 1, threads, 1, 1, 0, stream, addresses, None)

    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device.index)  # the context that torch uses
    with on_device():
        call("cuModuleLoadData", ctypes.byref(module), binary)
        for name, function in functions.items():
            call("cuModuleGetFunction", ctypes.byref(function), module, name)
    return launch


def _binary(options: Sequence[str]) -> bytes:
    """The compiled kernels. Raises OSError, RuntimeError."""
    version = str(torch.version.cuda).partition(".")[0]
    nvrtc = ctypes.CDLL(f"nvrtc64_{version}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{version}")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def check(status: int) -> None:
        if status:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"the CUDA compiler fails with status {status}: {log.value.decode()}")

    name = _SOURCE.name.encode()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), _SOURCE.read_bytes(), name, 0, None, None))
    try:
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        check(nvrtc.nvrtcCompileProgram(program, len(options), encoded))
        check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        binary = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetCUBIN(program, binary))
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return binary.raw
