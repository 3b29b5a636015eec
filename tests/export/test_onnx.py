"""Models exported to ONNX, as onnxruntime computes them."""

import numpy as np
import onnx
import onnxruntime
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import ModelConfig
from lm.export.onnx import onnx_model
from lm.language_model import LanguageModel
from lm.model.cells import CELLS
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

TOKENIZER = train_tokenizer("char", iter([some_text(1000)]))


def model(**config) -> LanguageModel:
    """A small model whose weights, biases included, are all random."""
    torch.manual_seed(0)
    network = RecurrentLM(ModelConfig(**config), TOKENIZER.vocab_size)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return LanguageModel(network.eval(), TOKENIZER)


def session(exported: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported.SerializeToString())


def run(runtime, tokens, state):
    """What onnxruntime computes: logits, final state."""
    logits, *final = runtime.run(None, {"tokens": tokens, **dict(zip("hc", state, strict=False))})
    return logits, final


def random_state(network: RecurrentLM, batch: int) -> list[np.ndarray]:
    shape = (network.config.layers, batch, network.config.hidden_size)
    return [
        np.random.default_rng(part).normal(size=shape).astype("f")
        for part in range(len(CELLS[network.config.cell].states))
    ]


@given(
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 3),
    tie=st.booleans(),
    residual=st.booleans(),
    hidden_size=st.integers(1, 9),
    embedding_size=st.integers(1, 9),
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=2, max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_onnxruntime_computes_our_logits_and_states_for_any_batch_and_length(shapes, **config):
    ours = model(**config)
    runtime = session(onnx_model(ours))
    for batch, length in shapes:
        tokens = np.random.default_rng(0).integers(TOKENIZER.vocab_size, size=(batch, length))
        state = random_state(ours.network, batch)
        logits, final = run(runtime, tokens, state)
        with torch.no_grad():
            expected = ours.network(torch.tensor(tokens), tuple(map(torch.tensor, state)))
        np.testing.assert_allclose(logits, expected[0], atol=1e-5)
        for part, expected_part in zip(final, expected[1], strict=True):
            np.testing.assert_allclose(part, expected_part, atol=1e-5)
