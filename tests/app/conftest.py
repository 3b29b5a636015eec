"""Untrained models with each kind of tokenizer, and an API client in this process."""

from types import SimpleNamespace

import pytest
import torch
from gradio.context import LocalContext
from starlette.testclient import TestClient

from app.api.request import Limits
from app.api.server import Api
from app.registry import ModelRegistry
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

URL = "/v1/completions"
LIMITS = Limits(max_tokens=3000, prompt_characters=500, sequences=8, waiting=4, body_bytes=20_000)
MODELS = {  # name -> tokenizer and direction
    "char": ("char", "forward"),
    "bpe": ("bpe", "forward"),
    "word": ("word", "forward"),
    "byte": ("byte", "forward"),
    "back": ("char", "backward"),
    "cut": ("char", "forward"),
}


@pytest.fixture
def in_chinese():
    """The current request comes from a browser in Chinese."""
    token = LocalContext.request.set(SimpleNamespace(headers={"accept-language": "zh-CN"}))
    yield
    LocalContext.request.reset(token)


@pytest.fixture(scope="package")
def api_runs(tmp_path_factory):
    """A folder with one untrained model per kind of tokenizer, a backward one and a truncated one."""
    runs = tmp_path_factory.mktemp("runs")
    for name, (kind, direction) in MODELS.items():
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([some_text(3000) + "naïve 中文 " * 9]), 300)
        config = ModelConfig(cell="gru", layers=1, hidden_size=24, embedding_size=16, direction=direction)
        # A model trained on a single document never generates the end of a text.
        facts = {"trained_on": {"dataset": "x", "characters": 1, "documents": 1}} if kind == "char" else {}
        LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, facts).save(runs / name)
    (runs / "cut" / "model.safetensors").write_bytes(b"short")
    return runs


@pytest.fixture(scope="package")
def api(api_runs):
    return Api(ModelRegistry([api_runs]), LIMITS)


@pytest.fixture(scope="package")
def client(api):
    with TestClient(api.app()) as client:
        yield client


def complete(client, **body):
    """The response object of a request, which must succeed."""
    response = client.post(URL, json={"model": "char", **body})
    assert response.status_code == 200, response.text
    return response.json()


def rejected(client, status=400, **body):
    """The error object of a request, which must fail with `status`."""
    response = client.post(URL, json={"model": "char", **body})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return error
