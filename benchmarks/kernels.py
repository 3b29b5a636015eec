"""The kernels of a computation on a GPU, from torch's profiler: their number and when they are active."""

import time
from collections.abc import Callable, Iterable

import torch


def kernels_of(step: Callable[[], object], count: int = 20) -> tuple[float, float]:
    """The share of the wall time of `count` steps in which the GPU works, and the kernels per step."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:  # else it warns
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begin
    on_gpu = [
        event.time_range
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation  # a name for several kernels
    ]
    busy = covered((interval.start, interval.end) for interval in on_gpu)
    return busy / 1e6 / wall, len(on_gpu) / count


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals: kernels may run at the same time."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
