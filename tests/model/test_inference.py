"""Reading without gradients equals the network's forward pass, however texts are grouped and cut."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import ModelConfig
from lm.model.cells import CELLS
from lm.model.device import Precision, autocast
from lm.model.inference import decoding, inference
from lm.model.network import RecurrentLM
from tests.model.rounding import rows_are_independent

ROWS_ARE_INDEPENDENT = [p for p in (Precision.FP32, Precision.BF16) if rows_are_independent(p.dtype)]


def network(cell, vocab=11, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, **{"hidden_size": 6, "embedding_size": 5, "layers": 2, **settings})
    made = RecurrentLM(config, vocab)
    with torch.no_grad():
        for name, bias in made.named_parameters():
            if "bias" in name:  # most are zero at first
                bias += 0.5 * torch.randn_like(bias)
    return made.to(dtype).train()


def tokens(time, rows, vocab=11):
    return torch.randint(vocab, (time, rows), generator=torch.Generator().manual_seed(time + rows))


def states_of(read, text, state=None):
    """The hidden states (time, rows, hidden) and the state after the text."""
    blocks = []
    end = read(text, state, lambda steps, rows, hidden: blocks.append((steps, rows, hidden)))
    out = torch.full((*text.shape, blocks[0][2].shape[2]), torch.nan, dtype=blocks[0][2].dtype)
    for steps, rows, hidden in blocks:
        assert out[steps, rows].isnan().all()  # each step of each row once
        out[steps, rows] = hidden
    assert not out.isnan().any()
    return out, end


@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(list(CELLS)),
    vocab=st.sampled_from([2, 11, 500]),  # some larger than the number of tokens
    time=st.integers(1, 20),  # a block has 16
    rows=st.sampled_from([1, 2, 16, 33]),
    layers=st.integers(1, 3),
    residual=st.booleans(),
    implementation=st.sampled_from(["fused", "reference"]),
)
def test_it_equals_the_forward_pass(cell, vocab, time, rows, layers, residual, implementation):
    model = network(
        cell,
        vocab,
        torch.float64,
        layers=layers,
        residual=residual,
        cell_implementation=implementation,
        dropout=0.5,
    )
    text = tokens(2 * time, rows, vocab)
    with inference(model, Precision.FP32) as read:
        first, state = states_of(read, text[:time])
        before = [part.clone() for part in state]
        second, end = states_of(read, text[time:], state)
    assert model.training
    assert all(map(torch.equal, before, state))  # which the caller may still need
    expected, expected_end = model.eval().hidden_states(text.t())
    torch.testing.assert_close(torch.cat([first, second]), expected)
    torch.testing.assert_close(end, expected_end)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ROWS_ARE_INDEPENDENT)
@pytest.mark.parametrize("units", [40, 64])
def test_a_text_is_read_identically_alone_and_among_others(cell, precision, units):
    model, text = network(cell, vocab=70, hidden_size=units, embedding_size=24, layers=3), tokens(30, 37, 70)
    with inference(model, precision) as read:
        together, state = states_of(read, text)
        pieces, end = [], None
        for begin in range(0, 30, 7):
            hidden, end = states_of(read, text[begin : begin + 7, :3], end)
            pieces.append(hidden)
    assert torch.equal(torch.cat(pieces), together[:, :3])
    assert all(torch.equal(a, b[:, :3]) for a, b in zip(end, state, strict=True))
    with inference(model, precision) as read:  # no table: fewer tokens than the vocabulary has
        assert torch.equal(states_of(read, text[:, 20:21])[0], together[:, 20:21])


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_rounds_no_more_than_the_forward_pass(cell):
    model, text = network(cell, hidden_size=64, embedding_size=32), tokens(40, 20)
    exact = model.eval().hidden_states(text.t())[0]
    with autocast(torch.device("cpu"), Precision.BF16):
        rounded = model.hidden_states(text.t())[0]
    with inference(model, Precision.BF16) as read:
        found, state = states_of(read, text)
    assert found.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    assert (found - exact).abs().mean() < (rounded - exact).abs().mean()


def test_the_threads_of_torch_are_the_same_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with inference(network("gru"), Precision.FP32) as read:
            states_of(read, tokens(5, 40))
        with ThreadPoolExecutor(1) as pool:  # a new thread begins with what any thread has set last
            assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_raised():
    with inference(network("lstm"), Precision.FP32) as read, pytest.raises(IndexError):
        states_of(read, tokens(5, 40) + 11)


def test_weights_are_packed_again_when_they_have_changed():
    model, text = network("lstm").eval(), tokens(9, 2)

    def read():
        with inference(model, Precision.FP32) as read:
            return states_of(read, text)[0]

    def expected():
        return model.hidden_states(text.t())[0]

    torch.testing.assert_close(read(), expected())
    before = read()
    with torch.no_grad():
        model.recurrent.weight_hh_l0 *= 2
    torch.testing.assert_close(read(), expected())
    assert not torch.equal(read(), before)
    model.load_state_dict(network("lstm").state_dict())
    assert torch.equal(read(), before)
    model.decoder.bias.data = model.decoder.bias + 1
    hidden = read()[-1]
    with torch.inference_mode():
        torch.testing.assert_close(decoding(model, Precision.FP32)(hidden), model.decode(hidden))


def test_weights_are_packed_again_for_another_precision():
    model, text = network("gru").eval(), tokens(9, 2)
    for precision in (Precision.FP32, Precision.BF16, Precision.FP32):
        with inference(model, precision) as read:
            assert states_of(read, text)[0].dtype == precision.dtype


def test_weights_that_torch_does_not_watch_are_packed_each_time():
    with torch.inference_mode():
        model, text = network("gru").eval(), tokens(9, 2)
        for _ in range(2):
            with inference(model, Precision.FP32) as read:
                torch.testing.assert_close(states_of(read, text)[0], model.hidden_states(text.t())[0])
            model.recurrent.weight_hh_l0 *= 2


def test_a_small_lstm_is_read_by_its_forward_pass_which_is_faster():
    model, text = network("lstm", hidden_size=40).eval(), tokens(20, 9)
    with inference(model, Precision.FP32, independent=False) as read, torch.inference_mode():
        assert torch.equal(states_of(read, text)[0], model.hidden_states(text.t())[0])
