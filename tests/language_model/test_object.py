"""A LanguageModel as a Python object: its repr, copies of it, and the names of the package."""

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

import lm
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

COPIED = ["bf16", "int8", "ensemble", "clamped"]


def test_int8_runs_on_the_cpu_even_next_to_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lm.load("pretrained", precision="int8").device.type == "cpu"


def test_repr_says_what_the_model_is_in_one_line():
    tokenizer = train_tokenizer("char", iter(["the sea"]), 300)
    config = ModelConfig(cell="gru", layers=2, hidden_size=600, embedding_size=8)
    facts = {"validation": {"bits_per_character": 1.8959}}
    model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, facts)
    start = "gru, 2 layers of 600 units, 3.3M parameters, char"
    assert model.network.parameter_count() == 3_266_472
    assert repr(model) == f"LanguageModel({start}, 1.90 bits per character)"
    small = LanguageModel(RecurrentLM(ModelConfig(hidden_size=8, layers=1), 5), tokenizer)
    assert "1 layer of 8 units, 661 parameters" in repr(small)
    assert repr(lm.load("pretrained")).startswith("LanguageModel('pretrained', lstm, ")
    mixed, clamped = model.mixed_with([(model, 0.5)]), model.clamped(lm.Clamp(0, 0, 0.0))
    assert repr(mixed) == f"LanguageModel(ensemble, {start})"  # without the bits of a single model
    assert repr(clamped) == f"LanguageModel({start}, 1 clamped unit)"


def pretrained(kind):
    model = lm.load("pretrained", precision=kind if kind in ("bf16", "int8") else "fp32")
    if kind == "ensemble":
        return model.mixed_with([(lm.load("pretrained"), 0.3)])
    return model.clamped(lm.Clamp(0, 1, 0.5)) if kind == "clamped" else model


def texts_of(models):
    return [model.generate("def ", seed=3, max_new_tokens=20)[0].text for model in models]


@pytest.mark.parametrize("kind", COPIED)
def test_a_copy_generates_the_same_text_with_weights_of_its_own(kind):
    model = pretrained(kind)
    texts = texts_of([model])
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.network.embedding.weight.neg_()
    assert repr(other) == repr(model)
    assert texts_of([other]) == texts
    assert texts_of([copy.deepcopy(model)]) != texts


@pytest.mark.slow
def test_models_can_be_sent_to_another_process():
    models = [pretrained(kind) for kind in COPIED]
    texts = texts_of(models)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(texts_of, models).result() == texts


def test_dir_lists_the_public_names():
    assert dir(lm) == sorted(["__version__", *lm.__all__])
    assert {"load", "train", "evaluate", "LanguageModel", "Session", "UserError"} < set(dir(lm))
    assert all(getattr(lm, name) for name in dir(lm))
