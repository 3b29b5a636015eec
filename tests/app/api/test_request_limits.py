"""Requests at the documented limits are served, and those over a limit are rejected."""

import pytest
from starlette.testclient import TestClient

from app.api.request import Limits
from app.api.server import Api
from app.registry import ModelRegistry
from tests.app.conftest import URL, complete, rejected


def test_up_to_16_stop_strings(client):
    (whole,) = complete(client, prompt="The", seed=1, max_tokens=40)["choices"]
    last = whole["text"][20]
    stops = [*(f"<{i}>" for i in range(15)), last]
    (choice,) = complete(client, prompt="The", seed=1, max_tokens=40, stop=stops)["choices"]
    assert choice["text"] == whole["text"].partition(last)[0] and choice["finish_reason"] == "stop"
    assert "at most 16" in rejected(client, stop=[*stops, "x"])["message"]


AT_THE_LIMIT = {
    "prompts": {"prompt": [f"The sea {i}" for i in range(64)]},
    "n": {"n": 64, "best_of": 64},
    "both": {"prompt": ["The", "A", "", "x"], "n": 16, "echo": True, "logprobs": 5, "stream": True},
    "tokens": {"n": 64, "max_tokens": 20_000, "stop": ["e", "a", "t"]},
    "stop": {"n": 64, "stop": [character * 1000 for character in "abcdefghijklmnop"]},
    "ban": {"n": 64, "ban": [f"{i:03}" * 333 for i in range(64)]},
    "logit_bias": {"model": "bpe", "n": 64, "logit_bias": {str(token): -1.5 for token in range(200)}},
    "match": {"match": "e" * 1000, "max_tokens": 3},
    "prompt": {"prompt": "x" * 40_000},
    "body": {"prompt": "x", "user": "x" * 3_999_000},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_requests_at_the_documented_limits_are_served(api_runs, name):
    body = {"model": "char", "max_tokens": 5, "seed": 1, **AT_THE_LIMIT[name]}
    with TestClient(Api(ModelRegistry([api_runs]), Limits()).app()) as client:
        response = client.post(URL, json=body)
        assert response.status_code == 200, response.text
        if not body.get("stream"):
            wanted = body.get("n", 1) * (len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1)
            assert len(response.json()["choices"]) == wanted


@pytest.mark.parametrize("body", [{"n": 65}, {"prompt": ["x"] * 65}, {"prompt": ["x"] * 33, "n": 2}])
def test_batch_over_the_limit_is_told_the_limit(api_runs, body):
    with TestClient(Api(ModelRegistry([api_runs]), Limits()).app()) as client:
        error = rejected(client, 400, **body)
    assert "at most 64" in error["message"] and error["param"] == ("n" if "n" in body else "prompt")


def test_prompt_over_the_limit_is_rejected(client):
    complete(client, prompt="x" * 500)
    assert rejected(client, prompt=["a", "x" * 501])["code"] == "context_length_exceeded"
