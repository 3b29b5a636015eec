"""The number of weights of a network, computed from its settings.

Building the network would take memory, and torch's "meta" device imports the compiler, which takes seconds.
"""

from __future__ import annotations

from lm.config.resolved import NetworkConfig
from lm.model.cells import CELLS


def parameter_count(model: NetworkConfig, vocab_size: int) -> int:
    """The number of weights of a network; a tied matrix counts once."""
    hidden, width = model.hidden_size, model.embedding_size
    biases = 2 * len(CELLS[model.cell].gates) * hidden * model.layers + vocab_size
    projection = hidden * width if width != hidden else 0
    decoder = projection if model.tie else vocab_size * hidden
    return recurrent_weights(model) + vocab_size * width + decoder + biases


def recurrent_weights(model: NetworkConfig) -> int:
    """The number of weights in the recurrent matrices. Embedding tables are looked up, not multiplied."""
    hidden = model.hidden_size
    inputs = model.embedding_size + (model.layers - 1) * hidden
    return len(CELLS[model.cell].gates) * hidden * (inputs + model.layers * hidden)
