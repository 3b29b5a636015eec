"""CUDA graphs: a computation is captured once and from then on launched as a whole.

A recurrent network's kernels are short: launching them one by one takes longer than running them. A captured
computation is launched with a single call. In return it must do the same work each time: everything that
varies is in tensors that keep their address, and nothing waits for the device. This is the only file that
knows how computations are captured.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from lm.errors import one_line
from lm.model.device import Precision

_WARM_UP = 2  # calls before the capture, in which libraries allocate their workspaces
# A wrong graph (a frozen learning rate, a repeated dropout mask) is off by far more than this.
_SMALLEST_TOLERANCE = 0.01  # relative

_CAPTURING = threading.Lock()  # torch allows one capture at a time
# By the number of their device: the stream of captures, and a graph that is never deleted.
_STREAMS: dict[int, torch.cuda.Stream] = {}
_GRAPHS: dict[int, torch.cuda.CUDAGraph] = {}

Compute = Callable[[], Tensor]


def capture_and_verify(
    compute: Compute,
    trial: Callable[[Compute], None],
    state: Callable[[], Mapping[str, Tensor]],
    precision: Precision,
    capture_all: Callable[[], Compute] | None = None,
    agree: Callable[[bool], bool] = bool,
) -> tuple[Compute, str]:
    """`compute` as a CUDA graph and "", or `compute` itself and the reason why it cannot be one.

    The graph is verified first: from the same state, `trial` of `compute` and `trial` of the graph must end
    with the same state, up to the rounding of `precision`. Afterwards the state and the random numbers are as
    before.

    Args:
        compute: works in place on tensors that keep their address. It returns a tensor, which a graph
            overwrites at the next call.
        trial: calls its argument a few times, with other inputs each time.
        state: all tensors that `trial` changes, by name. Those that the first call creates start as zeros.
        capture_all: does `compute` by calling what `capture` returned for its parts, if not all of it can be
            captured.
        agree: whether all processes that compute together succeeded, given whether this one did.
    """
    before, reason = _copy(state()), ""
    with _random_state_restored():
        trial(compute)
        expected = _copy(state())
        _return_to(before, state())
        try:
            graph = capture_all() if capture_all else capture(compute)
        except Exception as error:
            graph, reason = compute, one_line(error)
    _return_to(before, state())
    if not agree(not reason):
        return compute, reason or "another rank could not capture it"
    with _random_state_restored():
        trial(graph)
        found = _copy(state())
    _return_to(before, state())
    tolerance = max(precision.eps**0.5, _SMALLEST_TOLERANCE)
    for name, tensor in expected.items():
        difference = _relative_difference(found[name], tensor, before.get(name))
        if not difference <= tolerance:  # also if it is not a number
            return compute, f"its results differ by {difference:.1%} in {name}"
    return graph, ""


def capture(compute: Compute) -> Compute:
    """Capture `compute`, which is called a few times for that, in a CUDA graph."""
    with _CAPTURING, _stream_for_captures() as stream:
        for _ in range(_WARM_UP):
            compute()
        graph = torch.cuda.CUDAGraph()
        with (
            warnings.catch_warnings(),
            _usable_random_numbers(stream),
            _own_workspace(),
            _no_garbage_collection(),
            _own_memory() as memory,
        ):
            warnings.simplefilter("ignore")  # an empty graph is found by its results
            # Other threads may use the device meanwhile, for example the web UI for another model.
            with torch.cuda.graph(graph, memory, stream, "thread_local"):
                result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


@contextmanager
def _stream_for_captures() -> Iterator[torch.cuda.Stream]:
    """Switch to a CUDA stream that no other thread uses: what another thread launched there during a capture
    would become a part of the graph.

    torch has a few streams of each priority, which it returns in turn. Nothing else here asks for this one.
    """
    device, before = torch.cuda.current_device(), torch.cuda.current_stream()
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device, priority=-1)
    stream = _STREAMS[device]
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):  # left also if a capture fails, after which torch does not leave it
            yield stream
    finally:
        before.wait_stream(stream)


@contextmanager
def _usable_random_numbers(stream: torch.cuda.Stream) -> Iterator[None]:
    """Keep torch's random numbers on this device usable, whatever a capture does.

    torch creates the tensors for random numbers in graphs with the first graph. In inference mode, later
    captures outside of it would fail (pytorch/pytorch#166792). After a failed capture, torch acts as if it
    were still capturing until another capture succeeds.
    """
    if stream.device_index not in _GRAPHS:
        _GRAPHS[stream.device_index] = _trivial_graph(stream)
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # the first error says more
            _GRAPHS[stream.device_index] = _trivial_graph(stream)
        raise


def _trivial_graph(stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(False):
        number = torch.zeros((), device=stream.device).add_(1)  # the kernel is loaded before the capture
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            number.add_(1)
    return graph


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: another graph that it frees could end the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _own_workspace() -> Iterator[None]:
    """Let a capture allocate a workspace for matrix products. Otherwise torch gives all captures of a
    CUDA stream the same one, but frees it with the first of them (pytorch/pytorch#193402), and graphs that
    share one must not run at the same time."""
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


@contextmanager
def _own_memory() -> Iterator[Any]:
    """The id of a new pool of memory for a capture. If that fails, leave the pool, which torch does not:
    until then, it cannot free memory that it keeps for later, or capture anything else."""
    pool = torch.cuda.graph_pool_handle()
    try:
        yield pool
    except BaseException:
        with suppress(RuntimeError):  # if torch had not entered the pool, or has left it
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
        raise


@contextmanager
def _random_state_restored() -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@torch.no_grad()
def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@torch.no_grad()
def _return_to(before: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if name in before:
            tensor.copy_(before[name])
        else:
            tensor.zero_()


def _relative_difference(found: Tensor, expected: Tensor, before: Tensor | None) -> float:
    """The difference of two results, relative to how much the computation changed."""
    found, expected = found.double(), expected.double()
    change = (expected if before is None else expected - before.double()).norm().item()
    difference = (found - expected).norm().item()
    return difference / change if change else float(difference > 0)
