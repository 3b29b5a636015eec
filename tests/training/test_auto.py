"""`auto` settings fit the text and the budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lm.config.resolved import NetworkConfig
from lm.config.schema import CELLS, ModelConfig, RunConfig
from lm.data.batches import Windows
from lm.model.device import Precision
from lm.model.network import RecurrentLM
from lm.training.auto import SIZES, parameters, resolve

CPU = torch.device("cpu")


def resolved(tokens=100_000, vocab_size=50, **settings):
    config = RunConfig.from_flat({"batch_size": 4, "bptt": 8, **settings})
    windows = Windows(np.zeros(tokens, np.uint16), 4, 8, 0, CPU)
    return resolve(config, windows, vocab_size, CPU, Precision.FP32)


@pytest.mark.parametrize("cell", CELLS)
def test_a_larger_budget_gets_a_larger_network(cell):
    sizes = [resolved(cell=cell, steps=steps).model.hidden_size for steps in (1, 100_000, 5_000_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SIZES[0] < sizes[1] < sizes[-1]


def test_equal_budgets_in_steps_and_epochs_get_the_same_network():
    assert resolved(steps=100_000).model == resolved(epochs=100_000 * 4 * 8 / 100_000).model


def test_a_time_budget_is_measured_on_this_machine():
    short, long = (resolved(max_time=seconds).model.hidden_size for seconds in (1, 30_000))
    assert SIZES[0] <= short < long


def test_dropout_grows_with_the_number_of_epochs():
    dropped = [resolved(epochs=epochs, hidden_size=200).model.dropout for epochs in (1, 10, 100, 1000)]
    assert dropped == sorted(dropped)
    assert dropped[0] == 0 < dropped[1] < dropped[2]
    assert dropped[-1] <= 0.5


def test_a_network_too_small_to_memorize_the_text_gets_less_dropout():
    small, middle, large = (resolved(epochs=20, hidden_size=size).model.dropout for size in (8, 64, 200))
    assert small < middle < large
    assert resolved(epochs=20, hidden_size=400).model.dropout == large


def test_embedding_tables_count_as_memory_for_the_text():
    few, many = (resolved(vocab_size=size, epochs=20, hidden_size=32).model.dropout for size in (50, 10_000))
    assert few < many == resolved(epochs=20, hidden_size=400).model.dropout


def test_output_dropout_equals_the_dropout_between_layers():
    model = resolved(epochs=20, hidden_size=200).model
    assert model.dropout == model.output_dropout > 0
    assert resolved(epochs=20, hidden_size=200, output_dropout=0.0).model.output_dropout == 0


def test_input_dropout_and_lstm_weight_dropout_are_half_as_strong():
    for cell in CELLS:
        model = resolved(cell=cell, epochs=20, hidden_size=200).model
        half = pytest.approx(model.dropout / 2, abs=0.01)
        assert model.input_dropout == half
        assert model.weight_dropout == (half if cell == "lstm" else 0)
    assert resolved(epochs=20, hidden_size=200, weight_dropout=0.0).model.weight_dropout == 0


def test_explicit_settings_are_kept():
    config = resolved(hidden_size=37, dropout=0.11, lr=0.013, steps=10)
    assert (config.model.hidden_size, config.model.dropout, config.training.lr) == (37, 0.11, 0.013)


def test_probing_leaves_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    resolved(max_time=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_larger_networks_get_lower_learning_rates():
    rates = [resolved(hidden_size=size, steps=10).training.lr for size in (64, 256, 1024)]
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
def test_parameters_are_counted_without_building_the_network(cell, layers, hidden, width, tie, vocab_size):
    model = ModelConfig(cell=cell, layers=layers, hidden_size=hidden, embedding_size=width, tie=tie)
    assert parameters(NetworkConfig.of(model), vocab_size) == RecurrentLM(model, vocab_size).parameter_count()
