"""Models in the two forms that the tests compare, of lm and of transformers, and their log-probabilities.

Functions import transformers, which takes seconds: every worker of xdist reads these tests, but only one runs
them.
"""

import torch

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

TEXT = some_text(3000) + "naïve 中文 \U0001f642 " * 9
TEXTS = ["The sea was calm.", "A", "\nwas <eos> naïve\n\n", "<unk> zzz Ω , a boat ."]


def make(kind="char", documents=9, scale=0.3, **settings):
    """A model with weights large enough that its predictions differ from each other."""
    torch.manual_seed(0)
    tokenizer = kind if isinstance(kind, Tokenizer) else train_tokenizer(kind, iter([TEXT]), 300)
    config = ModelConfig(**{"layers": 2, "hidden_size": 16, "embedding_size": 12, **settings})
    network = RecurrentLM(config, tokenizer.vocab_size).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight += scale * torch.randn_like(weight)
    facts = {"trained_on": {"dataset": "x", "characters": 1, "documents": documents}}
    return LanguageModel(network, tokenizer, facts)


def loaded(folder, **options):
    """The model and the tokenizer of a folder, as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def saved(model, folder, **options):
    model.save(folder, **options)
    return loaded(folder)


@torch.no_grad()
def logprobs(model, tokens):
    """The log-probability of each of `tokens` but the first."""
    ids = torch.tensor([tokens])
    found = model(ids).logits[0, :-1].log_softmax(dim=-1)
    return found.gather(1, ids[0, 1:, None])[:, 0]


def scores(model, text):
    return torch.tensor([score.logprob for score in model.score(text)])
