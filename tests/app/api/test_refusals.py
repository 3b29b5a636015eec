"""What the API refuses: everything that is wrong is named, in OpenAI's form, and nothing makes it stumble."""

import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient

from tests.app.conftest import LIMITS, URL, ask, refused

WRONG = {
    "model": [5, ["char"], ""],
    "prompt": [5, [], [[1, 2]], [1, 2], ["a", 1], {}],
    "n": [0, -1, 1.5, "2", True, 9, 10**30],
    "best_of": [2, "1"],
    "max_tokens": [-1, 3001, "5", 1e3],
    "temperature": [-0.1, 2.1, "1", True, [1], 10**400],
    "top_p": [-0.1, 1.1],
    "logprobs": [-1, 6, True],
    "seed": [2**63, 1.0, "x"],
    "stop": [5, ["a"] * 5, [1], {"a": 1}, "x" * 1001, False],
    "echo": [1, "true"],
    "stream": [1],
    "stream_options": [5, {"usage": True}, {"include_usage": 1}],
    "logit_bias": [5, [1], {"x": 1}, {"-1": 1}, {"1": 101}, {"1": "x"}, {"1": None}, {"999": 1}, {"²": 1}],
    "suffix": ["x"],
    "top_k": [-1, 10**7, 1.5],
    "min_p": [2],
    "typical_p": [-1],
    "repetition_penalty": [0, 1e9, -1],
    "repetition_window": [0, 10**9],
    "no_repeat_ngram": [-1],
    "ban": [5, ["x"] * 65],
    "match": [5, ["a", "b"], "x" * 1001],
    "tempature": [1],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(client, name):
    for value in WRONG[name]:
        error = refused(client, 404 if (name, value) == ("model", "") else 400, **{name: value})
        assert error["param"].startswith(name) and name in error["message"], (name, value)
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("match", ["((", "(a|b", "(?=x)", "[z-a]"])
def test_a_pattern_that_is_none_is_refused(client, match):
    assert "pattern" in refused(client, match=match)["message"]


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
SENSIBLE = {"max_tokens": st.integers(0, 9), "n": st.integers(1, 3), "prompt": st.text(max_size=20)}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.fixed_dictionaries({}, optional={name: SENSIBLE.get(name, ANYTHING) for name in WRONG}))
def test_nothing_that_is_sent_makes_the_server_stumble(client, body):
    """The client of these tests raises what would be a traceback."""
    body["model"] = "bpe"
    try:
        data = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text


NO_JSON = [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b'{"n": ' + b"1" * 5000 + b"}", b"[" * 9999]


@pytest.mark.parametrize("data", [*NO_JSON, b'{"model": "char", "prompt": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(client, data):
    answer = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "JSON" in answer.json()["error"]["message"]


def test_a_form_such_as_any_web_page_may_send_is_refused(client):
    answer = client.post(URL, content=b'{"model": "char"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 400 and "Content-Type" in answer.json()["error"]["message"]


def test_a_body_that_is_too_long_is_refused_however_it_comes(client):
    json_type = {"content-type": "application/json"}
    long = b'{"model": "char", "prompt": "' + b"x" * LIMITS.body + b'"}'
    for content in (long, (long[i : i + 1000] for i in range(0, len(long), 1000))):
        answer = client.post(URL, content=content, headers=json_type)
        assert answer.status_code == 413 and "20,000 bytes" in answer.json()["error"]["message"]


def test_a_prompt_that_is_too_long_is_refused(client):
    ask(client, prompt="x" * 500)
    assert refused(client, prompt=["a", "x" * 501])["code"] == "context_length_exceeded"


def test_other_addresses_are_errors_of_the_same_form(client):
    for method, path, status in (("GET", "/", 404), ("GET", URL, 405), ("POST", "/x", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status and path in answer.json()["error"]["message"]


def test_without_the_key_nothing_is_told(api):
    client = TestClient(api.app(key="secret"))
    for header in (None, "secret", "Bearer", "Bearer wrong", "Bearer secret2", "Basic secret", "Bearer ü"):
        for path in ("/v1/models", URL, "/health", "/x"):
            headers = {} if header is None else {"authorization": header.encode("latin-1")}
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    for header in ("Bearer secret", "bearer secret"):
        assert client.get("/v1/models", headers={"authorization": header}).status_code == 200
