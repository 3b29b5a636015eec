"""For the tests of the API: models of every kind that have learned nothing, and a client in this process."""

import pytest
import torch
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
LIMITS = Limits(tokens=3000, characters=500, streams=8, body=20_000)


@pytest.fixture(scope="package")
def api_runs(tmp_path_factory):
    """Models that have learned nothing: one of each kind of token, one backward, one damaged."""
    runs = tmp_path_factory.mktemp("runs")
    for name, kind, direction in (
        ("char", "char", "forward"), ("bpe", "bpe", "forward"), ("word", "word", "forward"),
        ("byte", "byte", "forward"), ("back", "char", "backward"), ("cut", "char", "forward"),
    ):  # fmt: skip
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([some_text(3000) + "naïve 中文 " * 9]), 300)
        config = ModelConfig(cell="gru", layers=1, hidden_size=24, embedding_size=16, direction=direction)
        # One that knows a single document never ends by itself.
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


def ask(client, **body):
    answer = client.post(URL, json={"model": "char", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client, status=400, **body):
    answer = client.post(URL, json={"model": "char", **body})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return error
