"""Fixtures for what a GPU computes, on a CPU."""

import pytest

from tests.generation.kernels_on_cpu import needs_compiler, use_kernels
from tests.model import recorded


@pytest.fixture
def recorded_steps(monkeypatch, capsys):
    """Steps are recorded as on a GPU (tests/model/recorded.py), and every one agrees with the plain step."""
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)
    yield
    assert "slower" not in capsys.readouterr().err


@pytest.fixture(params=["torch", pytest.param("kernels", marks=needs_compiler)])
def operations(request, monkeypatch):
    """What computes a step: operations of torch, or the kernels of a GPU."""
    if request.param == "kernels":
        use_kernels(monkeypatch)
