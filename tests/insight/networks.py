"""Small models of every shape, with random weights large enough for gates to vary."""

import torch
from hypothesis import strategies as st

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

SAMPLE = "the sea was calm.\n\tnaïve  中文　😀 été\x85 the\xa0boat <eos> a\\n\n" * 30
# All tokenizers know the first word.
TEXTS = st.text("the sabo 中é😀.\n", max_size=40).map("e ".__add__)
SHAPES = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 3),
        "hidden_size": st.integers(1, 6),
        "embedding_size": st.integers(1, 5),
        "residual": st.booleans(),
        "tie": st.booleans(),
        "direction": st.sampled_from(["forward", "backward"]),
    }
)
_TOKENIZERS = {}


def make(kind="char", cell="lstm", seed=0, dtype=torch.float64, hidden_size=4, **shape):
    """A model with random weights, in double precision so that results agree to many digits."""
    if kind not in _TOKENIZERS:
        _TOKENIZERS[kind] = train_tokenizer(kind, iter([SAMPLE + "e "]), 400)
    tokenizer = _TOKENIZERS[kind]
    torch.manual_seed(seed)
    network = RecurrentLM(ModelConfig(cell=cell, hidden_size=hidden_size, **shape), tokenizer.vocab_size).to(
        dtype
    )
    with torch.no_grad():
        for weight in network.recurrent.parameters():
            weight.copy_(torch.randn_like(weight))
    return LanguageModel(network, tokenizer)
