"""Untrained models of each direction."""

import pytest
import torch

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer


@pytest.fixture(scope="module", params=["char", "bpe"])
def model(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter(["the sea was calm.\nnaïve 中文 " * 20]), 300)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=24), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer)


@pytest.fixture(scope="module", params=["char", "byte", "bpe", "word"])
def backward(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter(["the sea was calm.\nnaïve 中文 " * 20]), 300)
    config = ModelConfig(cell="gru", hidden_size=24, direction="backward")
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)


def streamed(model, *args, **options):
    return "".join(piece.text for piece in model.stream(*args, **options))
