"""What `auto` becomes: a network for the text and the budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lm.config.schema import CELLS, ModelConfig, RunConfig
from lm.data.batches import Windows
from lm.model.network import RecurrentLM
from lm.training.auto import SIZES, parameters, sized

CPU = torch.device("cpu")


def settle(tokens=100_000, vocab_size=50, **settings):
    config = RunConfig.from_flat({"batch_size": 4, "bptt": 8, **settings})
    windows = Windows(np.zeros(tokens, np.uint16), 4, 8, 0, CPU)
    return sized(config, windows, vocab_size, CPU)


@pytest.mark.parametrize("cell", CELLS)
def test_a_larger_budget_gets_a_larger_network(cell):
    sizes = [settle(cell=cell, steps=steps).model.hidden_size for steps in (1, 100_000, 5_000_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SIZES[0] < sizes[1] < sizes[-1]


def test_steps_and_epochs_of_the_same_length_get_the_same_network():
    assert settle(steps=100_000).model == settle(epochs=100_000 * 4 * 8 / 100_000).model


def test_a_budget_of_time_is_measured_on_this_machine():
    short, long = (settle(max_time=seconds).model.hidden_size for seconds in (1, 30_000))
    assert SIZES[0] <= short < long


def test_the_more_often_a_text_is_read_the_more_is_dropped():
    dropped = [settle(epochs=epochs, hidden_size=200).model.dropout for epochs in (1, 10, 100, 1000)]
    assert dropped == sorted(dropped)
    assert dropped[0] == 0 < dropped[1] < dropped[2]
    assert dropped[-1] <= 0.5


def test_a_network_too_small_to_learn_the_text_by_heart_drops_less():
    small, middle, large = (settle(epochs=20, hidden_size=size).model.dropout for size in (8, 64, 200))
    assert small < middle < large
    assert settle(epochs=20, hidden_size=400).model.dropout == large


def test_a_large_vocabulary_is_learned_by_heart_in_its_table():
    few, many = (settle(vocab_size=size, epochs=20, hidden_size=32).model.dropout for size in (50, 10_000))
    assert few < many == settle(epochs=20, hidden_size=400).model.dropout


def test_between_the_layers_and_before_the_decoder_as_much_is_dropped():
    model = settle(epochs=20, hidden_size=200).model
    assert model.dropout == model.output_dropout > 0
    assert settle(epochs=20, hidden_size=200, output_dropout=0.0).model.output_dropout == 0


def test_half_as_much_of_the_inputs_and_of_the_recurrence_of_an_lstm():
    for cell in CELLS:
        model = settle(cell=cell, epochs=20, hidden_size=200).model
        half = pytest.approx(model.dropout / 2, abs=0.01)
        assert model.input_dropout == half
        assert model.weight_dropout == (half if cell == "lstm" else 0)
    assert settle(epochs=20, hidden_size=200, weight_dropout=0.0).model.weight_dropout == 0


def test_what_was_named_stays():
    config = settle(hidden_size=37, dropout=0.11, lr=0.013, steps=10)
    assert (config.model.hidden_size, config.model.dropout, config.training.lr) == (37, 0.11, 0.013)


def test_nothing_is_drawn_from_the_random_state_that_the_weights_come_from():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    settle(max_time=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_larger_networks_learn_at_lower_rates():
    rates = [settle(hidden_size=size, steps=10).training.lr for size in (64, 256, 1024)]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] == pytest.approx(0.015)


@given(
    st.sampled_from(CELLS),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.integers(2, 40),
)
def test_weights_are_counted_without_making_the_network(cell, layers, hidden, width, tie, vocab_size):
    model = ModelConfig(cell=cell, layers=layers, hidden_size=hidden, embedding_size=width, tie=tie)
    assert parameters(model, vocab_size) == RecurrentLM(model, vocab_size).parameter_count()
