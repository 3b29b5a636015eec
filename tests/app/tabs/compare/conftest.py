"""Models with different tokens and directions, to compare."""

import pytest

import lm
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text


def untrained(kind, text=None, size=60, documents=1):
    """An untrained model with a tokenizer of its own. With a single document it never ends a text."""
    tokenizer = train_tokenizer(kind, [text or some_text(5000)], size, 1)
    network = RecurrentLM(ModelConfig(hidden_size=8), tokenizer.vocab_size).eval()
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": documents}})


@pytest.fixture(scope="package")
def boat(trained_run):
    return lm.load(trained_run, device="cpu")


@pytest.fixture(scope="package")
def taob(backward_run):
    return lm.load(backward_run, device="cpu")


@pytest.fixture(scope="package")
def models(boat):
    """Models of characters, subwords and words."""
    return {"boat": boat, "pieces": untrained("bpe", size=300), "words": untrained("word", size=200)}
