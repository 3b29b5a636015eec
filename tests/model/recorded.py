"""Records a computation on a CPU as a CUDA graph records it on a GPU.

The recorded operations are repeated on the same tensors, with the same numbers as arguments. So whatever a
CUDA graph would freeze (numbers of Python, decisions, new tensors from the host) is frozen here too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lm.data.batches import Windows
from lm.model import cuda_graph, layers, onednn
from lm.training import find_lr, loop, setup, state
from lm.training.optimizer import make_optimizer
from lm.training.step import Step

# Operations that wait for the device or whose result has a shape that depends on values.
_WAITING = {
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2", "item",
}  # fmt: skip


_ACTIVE: list["_Recorder"] = []


class WaitsForDevice(RuntimeError):
    """The computation reads a value on the host, which a CUDA graph does not allow."""


def record(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A replacement for `lm.model.cuda_graph.capture`."""
    compute()
    compute()
    with _Recorder() as recorder:
        _ACTIVE.append(recorder)
        try:
            result = compute()
        finally:
            _ACTIVE.pop()

    @torch.no_grad()
    def replay() -> Tensor:
        for function, args, kwargs, outputs in recorder.calls:
            again = function(*args, **kwargs)
            for tensor, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(new, Tensor) and new.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(new)
        return result

    return replay


def add(call: Callable[[], None]) -> None:
    """Record a call that is no operation of torch, if a computation is being recorded."""
    for recorder in _ACTIVE:
        recorder.calls.append((call, (), {}, None))


def train_as_on_a_gpu(setattr: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let trainings on this CPU do what they do on a GPU: record the step, and copy the text to the device.

    What oneDNN stores in layouts of its own cannot be repeated, so torch's basic operations are used.
    `setattr` is that of pytest's monkeypatch, or the built-in one in a process of its own.
    """
    setattr(cuda_graph, "capture", record)
    setattr(layers, "fused_kernel", lambda cell: None)
    setattr(onednn, "supports", lambda dtype: False)
    for module in (loop, find_lr):
        setattr(module, "Step", partial(Step, as_graph=True))
    setattr(state, "make_optimizer", partial(make_optimizer, capturable=True))
    setattr(setup, "Windows", _WindowsOnDevice)


class _WindowsOnDevice(Windows):
    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings, on_device=True)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in _WAITING:
            raise WaitsForDevice(f"{name} inside a recorded computation")
        if name == "lift_fresh":
            raise WaitsForDevice("a tensor made from Python values inside a recorded computation")
        outputs = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs
