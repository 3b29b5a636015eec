"""The network: state in and out, equal implementations, tied weights, shapes."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import CELL_NAMES, ModelConfig
from lm.model.network import RecurrentLM


@pytest.mark.parametrize("cell", CELL_NAMES)
@given(cut=st.integers(1, 11), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_reading_in_pieces_with_carried_state_equals_one_pass(cell, cut, seed):
    torch.manual_seed(seed)
    network = RecurrentLM(ModelConfig(cell=cell, hidden_size=8), 5).double()
    tokens = torch.randint(0, 5, (3, 12))
    whole, end = network(tokens)
    first, state = network(tokens[:, :cut])
    second, state = network(tokens[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, end)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_reference_and_fused_compute_the_same(cell):
    torch.manual_seed(0)
    fused = RecurrentLM(ModelConfig(cell=cell, hidden_size=8), 5).double()
    config = ModelConfig(cell=cell, hidden_size=8, cell_implementation="reference")
    reference = RecurrentLM(config, 5).double()
    reference.load_state_dict(fused.state_dict())
    tokens = torch.randint(0, 5, (2, 7))
    torch.testing.assert_close(reference(tokens)[0], fused(tokens)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_both_implementations_start_with_the_same_weights(cell):
    networks = []
    for implementation in ("fused", "reference"):
        torch.manual_seed(3)
        networks.append(
            RecurrentLM(ModelConfig(cell=cell, hidden_size=8, cell_implementation=implementation), 5)
        )
    first, second = (network.state_dict() for network in networks)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("embedding_size", ["auto", 4])
def test_a_tied_decoder_is_the_embedding(embedding_size):
    config = ModelConfig(hidden_size=8, embedding_size=embedding_size, tie=True)
    network = RecurrentLM(config, 11)
    assert network.decoder.weight is network.embedding.weight
    logits, _ = network(torch.zeros(2, 3, dtype=torch.long))
    assert logits.shape == (2, 3, 11)
    untied = RecurrentLM(ModelConfig(hidden_size=8, embedding_size=embedding_size), 11)
    projection = 8 * 4 if embedding_size == 4 else 0
    assert network.parameter_count() == untied.parameter_count() - 8 * 11 + projection


def test_an_lstm_starts_with_open_forget_gates():
    network = RecurrentLM(ModelConfig(cell="lstm", hidden_size=4, layers=1), 3)
    bias = network.recurrent.bias_hh_l0
    assert bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8
