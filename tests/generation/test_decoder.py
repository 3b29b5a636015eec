"""A decoding step equals the forward pass of the network, alone and in a batch, in each precision."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import CELL_NAMES
from lm.errors import UserError
from lm.generation import cpu_batch
from lm.generation.decoder import PREFILL_CHUNK, NetworkDecoder
from lm.generation.gpu_batch import GPUBatch, GPUWeights
from lm.model.device import choose_precision
from tests.generation.strategies import NETWORKS
from tests.generation.streams import LogitsOfGPU, network_of
from tests.model import recorded


def states_of(batch):
    rows = [batch.state(row) for row in range(batch.count)]
    return tuple(torch.cat(parts, dim=1) for parts in zip(*rows, strict=True))


def batch_of(kind, network, rows, precision="fp32"):
    batch = (
        NetworkDecoder(network, precision).batch()
        if kind == "cpu"
        else GPUBatch(GPUWeights(network, precision))
    )
    for _ in range(rows):
        batch.add(NetworkDecoder(network).initial_state())
    return batch


@pytest.mark.parametrize("kind", ["cpu", "gpu"])  # the arithmetic of the GPU batch also runs on a CPU
@pytest.mark.parametrize("implementation", ["fused", "reference"])
@pytest.mark.parametrize("cell", CELL_NAMES)
@given(network=st.fixed_dictionaries(NETWORKS), table=st.booleans())
@settings(max_examples=8, deadline=None)
def test_steps_equal_the_forward_pass(cell, implementation, kind, network, table):
    network = network_of(cell, implementation=implementation, **network)
    tokens = torch.randint(0, 13, (5, 6))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(cpu_batch, "MAX_TABLE", 10**9 if table else 0)
        patch.setattr("lm.model.cuda_graph.capture", recorded.record)
        expected, expected_state = network(tokens)
        batch = batch_of(kind, network, 5)
        for step in range(6):
            logits = batch.step(tokens[:, step].contiguous())
            torch.testing.assert_close(logits, expected[:, step], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states_of(batch), expected_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_row_is_bitwise_independent_of_the_other_rows(cell, precision):
    """Sequences come and go, the batch grows and rows move, without any effect on the watched row."""
    network = network_of(cell, embedding_size=5)
    choose = torch.Generator().manual_seed(3)
    watched = torch.randint(0, 13, (40,), generator=choose)
    alone = batch_of("cpu", network, 1, precision)
    expected = [alone.step(token[None])[0] for token in watched]

    batch = batch_of("cpu", network, 4, precision)
    row, moved = 3, 0
    for token, logits in zip(watched, expected, strict=True):
        for _ in range(torch.randint(0, 3, (1,), generator=choose)):
            batch.add(NetworkDecoder(network).initial_state())
        while batch.count > 1 and torch.rand(1, generator=choose) < 0.7:
            removed = int(torch.randint(0, batch.count, (1,), generator=choose))
            if removed != row:
                if row == batch.count - 1:
                    row, moved = removed, moved + 1
                batch.remove(removed)
        tokens = torch.randint(0, 13, (batch.count,), generator=choose)
        tokens[row] = token
        assert torch.equal(batch.step(tokens)[row], logits)
    assert all(map(torch.equal, batch.state(row), alone.state(0)))
    assert moved > 2


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_rows_can_be_selected_in_any_order_and_number(kind, monkeypatch):
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)
    network = network_of("lstm")
    batch = batch_of(kind, network, 3)
    batch.step(torch.tensor([1, 2, 3]))
    first, second, third = (batch.state(row) for row in range(3))
    batch.select([2, 2, 0, 1])
    for row, state in enumerate([third, third, first, second]):
        assert all(map(torch.equal, batch.state(row), state))
    assert batch.step(torch.tensor([5, 5, 6, 6])).shape == (4, 13)


def no_onednn(weight, bias, rows):
    return None


def another_onednn(weight, bias, rows):
    """A kernel that computes a row differently alone than in a batch."""
    return lambda rows: rows @ weight.t() + bias + 1e-3 * len(rows)


@pytest.mark.parametrize("packed_linear", [no_onednn, another_onednn])
def test_without_a_suitable_onednn_rows_are_multiplied_in_blocks(monkeypatch, packed_linear):
    monkeypatch.setattr("lm.model.onednn.packed_linear", packed_linear)
    test_a_row_is_bitwise_independent_of_the_other_rows("lstm", "fp32")


def test_without_torchs_integer_product_int8_gives_the_same_bits(monkeypatch):
    network, tokens = network_of("gru", layers=3), torch.tensor([1, 5, 9])
    expected = batch_of("cpu", network, 3, "int8").step(tokens)
    monkeypatch.delattr(torch, "_int_mm")
    assert torch.equal(batch_of("cpu", network, 3, "int8").step(tokens), expected)


@pytest.mark.parametrize("shape", [{}, {"tie": True, "embedding_size": 5, "layers": 3}])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_lower_precision_changes_little(cell, precision, shape):
    network = network_of(cell, **shape)
    tokens = torch.randint(0, 13, (4, 30), generator=torch.Generator().manual_seed(0))
    exact, rounded = batch_of("cpu", network, 4), batch_of("cpu", network, 4, precision)
    change = 0.0
    for step in tokens.t():
        a, b = exact.step(step.contiguous()).softmax(-1), rounded.step(step.contiguous()).softmax(-1)
        change = max(change, (a - b).abs().max().item())
    assert 0 < change < 0.05


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_prefill_gives_the_state_of_single_steps(cell):
    network = network_of(cell)
    decoder = NetworkDecoder(network)
    prompt = torch.randint(0, 13, (PREFILL_CHUNK + 9,), generator=torch.Generator().manual_seed(0))
    state = decoder.initial_state()
    for chunk in prompt.split(PREFILL_CHUNK):
        state = decoder.prefill(chunk, state)
    batch = batch_of("cpu", network, 1)
    for token in prompt:
        batch.step(token[None])
    torch.testing.assert_close(batch.state(0), state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [NetworkDecoder, LogitsOfGPU])
def test_further_training_does_not_change_the_decoder(kind, monkeypatch):
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)
    network = network_of("lstm", tie=True, embedding_size=5).train()
    decoder = kind(network)
    batch = decoder.batch()
    batch.add(decoder.initial_state())
    before = batch.step(torch.zeros(1, dtype=torch.long))
    decoder.prefill(torch.tensor([1, 2]), decoder.initial_state())
    assert network.training
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    batch = decoder.batch()
    batch.add(decoder.initial_state())
    assert torch.equal(before, batch.step(torch.zeros(1, dtype=torch.long)))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_logits_are_the_same_on_a_gpu(cell, precision):
    choose_precision(precision, torch.device("cuda"))  # another test may have chosen TF32
    network = network_of(cell)
    tokens = torch.randint(0, 13, (70, 9))
    on_cpu = batch_of("cpu", network, 70)
    decoder = NetworkDecoder(network.cuda(), precision)
    on_gpu = decoder.batch()
    for _ in range(70):
        on_gpu.add(decoder.initial_state())
    close = 1e-3 if precision == "fp32" else 0.1
    for step in tokens.t():  # the first is captured, the others are replayed
        expected, found = on_cpu.step(step.contiguous()), on_gpu.step(step.contiguous().cuda())
        torch.testing.assert_close(expected, found.cpu(), atol=close, rtol=close)
    with pytest.raises(UserError, match="int8 requires a CPU"):
        NetworkDecoder(network, "int8")
