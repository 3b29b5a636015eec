"""Windows: each stream continues where it stopped, and an epoch reads every token once."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.data.batches import Windows, divide_streams
from lm.distributed import share_of
from lm.errors import UserError
from lm.model.direction import Direction

CPU, EOS = torch.device("cpu"), 999


@given(size=st.integers(4, 200), batch=st.integers(1, 4), bptt=st.integers(1, 9), step=st.integers(0, 60))
def test_consecutive_windows_are_contiguous(size, batch, bptt, step):
    tokens = np.arange(size, dtype=np.uint16)
    windows = Windows(tokens, batch, bptt, EOS, CPU)
    inputs, targets = windows.window(step)
    after, _ = windows.window(step + 1)
    assert inputs.shape == targets.shape == (batch, bptt)
    # The next window starts with the last target of this one, or with <eos> at the start of the text.
    for last, first in zip(targets[:, -1].tolist(), after[:, 0].tolist(), strict=True):
        assert first == (EOS if last == size - 1 else last)
    # Within a window, each input is the target before it, except at the start of the text.
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


@given(batch=st.integers(3, 9), ranks=st.integers(1, 3), step=st.integers(0, 40))
def test_ranks_read_disjoint_streams(batch, ranks, step):
    tokens = np.arange(100, dtype=np.uint16)
    mixed = {"parts": [60, 40], "mix": [0.7, 0.3]}
    rows = [share_of(batch, rank, ranks) for rank in range(ranks)]
    of_ranks = [Windows(tokens, batch, 5, EOS, CPU, rows=share, **mixed) for share in rows]
    whole = Windows(tokens, batch, 5, EOS, CPU, **mixed)
    assert {windows.tokens_per_step for windows in of_ranks} == {whole.tokens_per_step}
    inputs, targets = map(torch.cat, zip(*(windows.window(step) for windows in of_ranks), strict=True))
    assert torch.equal(inputs, whole.window(step)[0])
    assert torch.equal(targets, whole.window(step)[1])


@given(
    sizes=st.lists(st.integers(20, 90), min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    batch=st.integers(4, 9),
    bptt=st.integers(1, 7),
)
def test_each_mixed_text_is_a_ring(sizes, weights, batch, bptt):
    """Token = 1000 * text + position: a stream stays in its text and follows its ring."""
    mix = [w / sum(weights[: len(sizes)]) for w in weights[: len(sizes)]]
    tokens = np.concatenate([1000 * i + np.arange(size) for i, size in enumerate(sizes)])
    windows = Windows(tokens, batch, bptt, 9999, CPU, parts=sizes, mix=mix)
    owners = np.repeat(np.arange(len(sizes)), windows.streams)
    last = None
    for step in range(30):
        inputs, targets = (part.numpy() for part in windows.window(step))
        for row, text in enumerate(owners):
            positions = targets[row] - 1000 * text
            assert (positions >= 0).all() and (positions < sizes[text]).all()
            before = np.where(positions == 0, 9999, targets[row] - 1)
            assert (inputs[row] == before).all()
            if last is not None:
                assert positions[0] == (last[row] - 1000 * text + 1) % sizes[text]
        last = targets[:, -1]


@given(mix=st.lists(st.integers(1, 20), min_size=1, max_size=6), extra=st.integers(0, 60))
def test_streams_are_divided_in_proportion_to_the_mix(mix, extra):
    fractions = np.array(mix) / sum(mix)
    streams = len(mix) + extra
    counts = np.array(divide_streams(streams, fractions))
    assert counts.sum() == streams
    assert counts.min() >= 1
    # A text gets at most one stream too few, except for those that give one to texts that would have none.
    given_away = sum(1 for fraction in fractions if fraction * streams < 1)
    assert (counts >= np.floor(fractions * streams) - given_away).all()


def test_fewer_streams_than_texts_is_an_error():
    with pytest.raises(UserError, match="too small to mix 3 texts"):
        divide_streams(2, [0.5, 0.25, 0.25])


def test_more_streams_than_tokens_is_an_error_with_the_maximum():
    with pytest.raises(UserError, match="use at most 3"):
        Windows(np.arange(3, dtype=np.uint16), 4, 2, EOS, CPU)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("types", [200, 60_000, 70_000])  # stored in one, two and four bytes
@pytest.mark.parametrize("direction", Direction)
def test_a_text_on_the_device_gives_the_same_windows(device, types, direction):
    tokens = np.random.default_rng(0).integers(0, types, 90, np.uint32)
    tokens[0] = types - 1
    settings = {"parts": [50, 40], "mix": [0.5, 0.5], "direction": direction}
    host = Windows(tokens, 3, 4, EOS, torch.device(device), **settings, on_device=False)
    there = Windows(tokens, 3, 4, EOS, torch.device(device), **settings, on_device=True)
    number = torch.zeros((), dtype=torch.int64, device=device)
    for step in range(40):
        number.fill_(step)
        for a, b in zip(host.window(step), there.window(number), strict=True):
            assert a.dtype == b.dtype == torch.int64
            assert a.device == b.device
            assert torch.equal(a, b)


@given(size=st.integers(4, 90), batch=st.integers(1, 4), bptt=st.integers(1, 9), step=st.integers(0, 30))
@settings(deadline=None)
def test_backward_windows_equal_windows_of_the_reversed_text(size, batch, bptt, step):
    tokens = np.arange(size, dtype=np.uint16)
    backward = Windows(tokens, batch, bptt, EOS, CPU, direction=Direction.BACKWARD).window(step)
    reversed_text = Windows(tokens[::-1].copy(), batch, bptt, EOS, CPU).window(step)
    assert all(map(torch.equal, backward, reversed_text))


def test_mixed_texts_are_read_backward_in_their_own_streams():
    tokens = np.concatenate([np.arange(30), 100 + np.arange(20)])
    windows = Windows(tokens, 4, 5, EOS, CPU, parts=[30, 20], mix=[0.5, 0.5], direction=Direction.BACKWARD)
    inputs, targets = windows.window(0)
    assert inputs[0].tolist() == [EOS, 29, 28, 27, 26] and targets[0].tolist() == [29, 28, 27, 26, 25]
    assert inputs[2].tolist() == [EOS, 119, 118, 117, 116]
