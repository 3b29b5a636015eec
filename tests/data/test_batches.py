"""Windows: each stream goes on where it stopped, and an epoch sees every token once."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lm.data.batches import Windows
from lm.errors import UserError

CPU, EOS = torch.device("cpu"), 999


@given(size=st.integers(4, 200), batch=st.integers(1, 4), bptt=st.integers(1, 9), step=st.integers(0, 60))
def test_windows_follow_each_other(size, batch, bptt, step):
    tokens = np.arange(size, dtype=np.uint16)
    windows = Windows(tokens, batch, bptt, EOS, CPU)
    inputs, targets = windows.window(step)
    after, _ = windows.window(step + 1)
    assert inputs.shape == targets.shape == (batch, bptt)
    # The next window begins with what this one had to predict last, or at the text's beginning.
    for last, first in zip(targets[:, -1].tolist(), after[:, 0].tolist(), strict=True):
        assert first == (EOS if last == size - 1 else last)
    # Within a window, inputs are the targets one step later, except at the text's beginning.
    for row in range(batch):
        for column in range(bptt):
            target = targets[row, column].item()
            assert inputs[row, column] == (EOS if target == 0 else target - 1)


@given(batch=st.integers(1, 5), bptt=st.integers(1, 7), windows_each=st.integers(1, 6))
def test_an_epoch_predicts_every_token_once(batch, bptt, windows_each):
    size = batch * bptt * windows_each
    windows = Windows(np.arange(size, dtype=np.uint16), batch, bptt, EOS, CPU)
    assert windows.steps_per_epoch == windows_each
    seen = Counter(t for step in range(windows_each) for t in windows.window(step)[1].flatten().tolist())
    assert seen == Counter(range(size))


def test_more_streams_than_tokens_names_the_largest_that_fits():
    with pytest.raises(UserError, match="largest that fits is 3"):
        Windows(np.arange(3, dtype=np.uint16), 4, 2, EOS, CPU)


@pytest.mark.gpu
def test_on_a_gpu_the_windows_are_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    tokens = np.arange(50, dtype=np.uint16)
    here, there = (Windows(tokens, 3, 4, EOS, torch.device(d)) for d in ("cpu", "cuda"))
    for step in range(20):
        for a, b in zip(here.window(step), there.window(step), strict=True):
            assert torch.equal(a, b.cpu())
