"""Models for the tests of model cards, and the code in a card."""

from __future__ import annotations

import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

LOSSES = {"loss": 1.25, "perplexity": 3.4903, "bits_per_character": 1.8034, "bits_per_byte": 1.7}
HUB_DATASET = {
    "id": "org/set",
    "revision": "a" * 40,
    "config": "default",
    "language": ["fr"],
    "license": "mit",
}
TRAINED_ON = {
    "dataset": "org/set",
    "hub_datasets": [HUB_DATASET],
    "init_from": "me/base@v1",
    "base_model": "me/base",
    "characters": 17,
    "documents": 3,
    "settings": {"dataset": ["org/set"], "cell": "gru", "steps": 7, "residual": False},
}


def make(facts=None, **options) -> LanguageModel:
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", iter(["the sea was calm\n"]))
    network = RecurrentLM(ModelConfig(**{"hidden_size": 8, **options}), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer, facts)


def blocks(card: str, language: str) -> list[str]:
    """The blocks of code in a card, as Markdown has them."""
    tokens = MarkdownIt("commonmark").parse(ModelCard(card).text)
    return [token.content for token in tokens if token.type == "fence" and token.info == language]
