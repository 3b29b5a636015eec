"""Who may use the API: clients with the key, and pages of allowed origins."""

import pytest
from starlette.testclient import TestClient

from app.access import MAX_ATTEMPTS, Attempts
from tests.app.conftest import LIMITS, URL


def test_nothing_is_served_without_the_key(api):
    client = TestClient(api.app(key="secret"))
    for header in (None, "secret", "Bearer", "Bearer wrong", "Bearer secret2", "Basic secret", "Bearer ü"):
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/v1/models", URL, "/v1/chat/completions", "/x", "/health/x"):
            response = client.get(path, headers=headers)
            assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        assert client.post("/health", headers=headers).status_code == 401
        for path in ("/health", "/health/"):  # for monitors; how many texts are written is not for everyone
            assert client.get(path, headers=headers).json() == {"status": "ok"}
            assert client.head(path, headers=headers).status_code == 200
    for header in ("Bearer secret", "bearer secret"):
        assert client.get("/v1/models", headers={"authorization": header}).status_code == 200
        assert client.get("/health", headers={"authorization": header}).json()["writing"] == 0


@pytest.mark.parametrize("path", ["/v1/models", "/health"])
def test_wrong_keys_are_limited(api, path):
    client = TestClient(api.app(key="secret"))
    for _ in range(30):  # a program with an old key locks out nobody
        client.get(path, headers={"authorization": "Bearer old"})
    right = {"authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=right).status_code == 200
    for number in range(MAX_ATTEMPTS):
        client.get(path, headers={"authorization": f"Bearer {number}"})
    for key in ("secret", "another"):
        response = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert response.status_code == 429 and 50 < int(response.headers["Retry-After"]) <= 60
        assert response.json()["error"]["message"].startswith("too many wrong API keys; try again in ")
    assert client.get("/health", headers=right).json() == {"status": "ok"}
    assert client.get("/v1/models").status_code == 401


def test_a_client_waits_until_the_last_second_is_over(api, monkeypatch):
    monkeypatch.setattr(Attempts, "seconds_to_wait", lambda attempts, client: 0.2)
    response = TestClient(api.app(key="secret")).get("/v1/models", headers={"authorization": "Bearer secret"})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")


PAGE = "http://localhost:3000"


def asked(client, origin, path=URL):
    """The answer to the question that a browser asks before the request of a page."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return client.options(path, headers=headers)


@pytest.mark.parametrize("key", [None, "secret"])
@pytest.mark.parametrize("origins", [[PAGE, "https://example.org"], ["*"]])
def test_pages_of_allowed_origins_may_use_the_api(api, key, origins):
    client, permission = TestClient(api.app(key, origins)), "access-control-allow-origin"
    expected = "*" if origins == ["*"] else PAGE
    question = asked(client, PAGE)
    assert question.status_code == 200 and question.headers[permission] == expected
    assert "POST" in question.headers["access-control-allow-methods"]
    for name in ("authorization", "content-type", "x-stainless-lang"):
        assert name in question.headers["access-control-allow-headers"]
    headers = {"origin": PAGE, "authorization": f"Bearer {key}"}
    for body, status in (
        ({"model": "char"}, 200),
        ({"model": "char", "stream": True}, 200),
        ({"model": "none"}, 404),
        ({"model": "char", "prompt": "x" * LIMITS.body_bytes}, 413),
    ):
        response = client.post(URL, json=body, headers=headers)
        assert (response.status_code, response.headers[permission]) == (status, expected)
    for path, status in (
        ("/v1/models", 401 if key else 200),
        ("/v1/x", 401 if key else 404),
        ("/health", 200),
    ):
        response = client.get(path, headers={"origin": PAGE})
        assert (response.status_code, response.headers[permission]) == (status, expected)
    if origins != ["*"]:
        assert permission not in asked(client, "http://localhost:3001").headers
        assert permission not in client.get("/health", headers={"origin": "http://localhost:3001"}).headers


def test_no_page_of_another_origin_may_use_the_api_by_default(client):
    for response in (asked(client, PAGE), client.get("/v1/models", headers={"origin": PAGE})):
        assert not [name for name in response.headers if name.startswith("access-control")]
