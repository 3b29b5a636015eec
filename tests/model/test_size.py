"""The number of weights of a network."""

from hypothesis import given, settings, strategies as st

from lm.config.resolved import NetworkConfig
from lm.config.schema import CELL_NAMES, ModelConfig
from lm.model.network import RecurrentLM
from lm.model.size import parameter_count


@given(
    st.sampled_from(CELL_NAMES),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.integers(2, 40),
)
@settings(deadline=None)
def test_parameters_are_counted_without_building_the_network(cell, layers, hidden, width, tie, vocab_size):
    model = ModelConfig(cell=cell, layers=layers, hidden_size=hidden, embedding_size=width, tie=tie)
    count = parameter_count(NetworkConfig.of(model), vocab_size)
    assert count == RecurrentLM(model, vocab_size).parameter_count()
