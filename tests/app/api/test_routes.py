"""Paths and methods: what each endpoint answers, and errors for all others."""

import pytest

from tests.app.conftest import URL


def test_unknown_endpoints_are_errors_in_the_same_format(client):
    for method, path, status in (("GET", "/", 404), ("GET", URL, 405), ("POST", "/x", 404)):
        response = client.request(method, path)
        assert response.status_code == status and path in response.json()["error"]["message"]
    message = client.get("/v1/a%0Ab" + "c" * 500).json()["error"]["message"]
    assert "\n" not in message and len(message) < 250


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/", "/v1/responses"])
def test_chat_endpoints_point_to_completions(client, method, path):
    response = client.request(method, path)
    error = response.json()["error"]
    assert response.status_code == 404 and error["type"] == "invalid_request_error"
    assert "do not chat" in error["message"] and "/v1/completions" in error["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/char", "/health", URL])
@pytest.mark.parametrize("slash", ["", "/"])
def test_known_endpoints_answer_their_methods_only(client, path, slash):
    allowed = {"POST"} if path == URL else {"GET", "HEAD"}
    for method in [*METHODS, "HEAD"]:
        response = client.request(method, path + slash)
        if method in allowed:
            assert response.status_code == (400 if path == URL else 200)  # without a body
        else:
            assert response.status_code == 405
            assert set(response.headers["allow"].split(", ")) == allowed
            if method != "HEAD":
                assert f"use {' or '.join(sorted(allowed))}." in response.json()["error"]["message"]
                assert method in response.json()["error"]["message"]


def test_slash_at_the_end_changes_nothing(client):
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()
    assert client.get("/v1/models/char/").json() == client.get("/v1/models/char").json()
    body = {"model": "char", "seed": 1}
    whole, slashed = (client.post(path, json=body, follow_redirects=False) for path in (URL, URL + "/"))
    assert slashed.status_code == 200 and slashed.json()["choices"] == whole.json()["choices"]
