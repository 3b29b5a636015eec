"""What a capture leaves behind on a GPU. Other tests play CUDA graphs on a CPU (recorded.py)."""

import gc

import pytest
import torch
from torch.nn import functional as F

from lm.model import cuda_graph

pytestmark = pytest.mark.gpu


def test_a_failed_capture_leaves_no_trace():
    x = torch.ones(4, device="cuda")
    before = torch.cuda.current_stream()

    def compute():
        x.sum().item()  # waits for the device
        return x

    with pytest.raises(RuntimeError, match="captur"):
        cuda_graph.capture(compute)
    assert torch.cuda.current_stream() == before
    assert gc.isenabled()
    assert 0 < F.dropout(torch.ones(1000, device="cuda"), 0.5).count_nonzero() < 1000
    free, _ = torch.cuda.mem_get_info()
    for share in (0.5, 0.7):  # during a capture, torch would not free the first to allocate the second
        torch.empty(int(share * free), dtype=torch.uint8, device="cuda")
    double = cuda_graph.capture(lambda: x.mul_(2))
    for _ in range(3):
        double()
    assert x.tolist() == [32.0] * 4  # two of the calls precede the capture


def test_random_numbers_are_captured_in_and_outside_of_inference_mode():
    x = torch.ones(1000, device="cuda")

    def dropped():
        return F.dropout(x, 0.5)

    with torch.inference_mode():
        graphs = [cuda_graph.capture(dropped)]
    graphs.append(cuda_graph.capture(dropped))
    for graph in graphs:
        first = graph().clone()
        assert 0 < first.count_nonzero() < 1000
        assert not torch.equal(first, graph())


def test_captures_have_a_stream_of_their_own():
    """All others compute on those that torch returns in turn."""
    x, used = torch.ones(4, device="cuda"), set()

    def compute():
        used.add(torch.cuda.current_stream().cuda_stream)
        return x.mul_(1)

    for _ in range(2):
        cuda_graph.capture(compute)
    assert len(used) == 1
    assert used.isdisjoint(torch.cuda.Stream().cuda_stream for _ in range(100))
