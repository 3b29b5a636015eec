"""Bodies of requests: JSON of a limited size and depth, which a page of another site cannot send."""

import gzip
import json
import time

import pytest
from starlette.testclient import TestClient

from app.api.request import Limits
from app.api.server import Api
from app.registry import ModelRegistry
from tests.app.conftest import LIMITS, URL

NOT_JSON = [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b'{"n": ' + b"1" * 5000 + b"}", b"[" * 9999]
SURROGATES = [b"\\ud800", b"\\uDFFFx", b"\xed\xa0\x80"]


@pytest.mark.parametrize("data", [*NOT_JSON, *(b'{"model": "char", "prompt": "%s"}' % s for s in SURROGATES)])
def test_body_must_be_a_json_object(client, data):
    response = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"n": ' + b"1" * 5000 + b"}", "a number has too many digits"),
        (b"[" * 9999, "lists or objects are nested too deeply"),
        (b'["\\uD83D"]', r"a string contains half of a surrogate pair (\ud83d), such as a cut emoji"),
    ],
)
def test_python_s_limits_are_explained(client, data, reason):
    response = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert response.json()["error"]["message"] == f"the request body is not valid JSON: {reason}."


def test_forms_that_any_website_could_send_are_rejected(client):
    response = client.post(URL, content=b'{"model": "char"}', headers={"content-type": "text/plain"})
    assert response.status_code == 400 and "Content-Type" in response.json()["error"]["message"]


def test_a_compressed_body_is_rejected(client):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = client.post(URL, content=gzip.compress(b'{"model": "char"}'), headers=headers)
    assert response.status_code == 415 and "Content-Encoding" in response.json()["error"]["message"]


def test_body_over_the_limit_is_rejected_with_or_without_a_length(client):
    json_type = {"content-type": "application/json"}
    body = b'{"model": "char", "prompt": "' + b"x" * LIMITS.body_bytes + b'"}'
    for content in (body, (body[i : i + 1000] for i in range(0, len(body), 1000))):
        response = client.post(URL, content=content, headers=json_type)
        assert response.status_code == 413 and "20,000 bytes" in response.json()["error"]["message"]


def test_body_may_begin_with_a_byte_order_mark_and_escape_characters(client):
    data = "\ufeff" + json.dumps({"model": "char", "prompt": "naïve 😀"})
    assert "\\ud83d" in data
    response = client.post(URL, content=data.encode(), headers={"content-type": "application/json"})
    assert response.status_code == 200


def post_text(api_runs, text):
    """The response to a body that need not be JSON, from a server with the usual limits."""
    with TestClient(Api(ModelRegistry([api_runs]), Limits()).app()) as client:
        return client.post(URL, content=text.encode(), headers={"content-type": "application/json"})


def test_a_million_lists_are_rejected_before_they_are_parsed(api_runs):
    for items in ("[]," * 1_300_000, '["a",{}],' * 440_000):
        start = time.process_time()
        response = post_text(api_runs, '{"model": "char", "prompt": [' + items + "[]]}")
        assert response.status_code == 400
        assert "more than 10,000 lists" in response.json()["error"]["message"]
        assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (f'"prompt": [{"1," * 1_900_000}1]', "more than 250,000 values"),
        (",".join(f'"user{number}": 1' for number in range(250_000)), "more than 10,000 lists, objects and"),
    ],
)
def test_a_million_values_are_rejected_before_they_are_parsed(api_runs, items, message):
    start = time.process_time()
    response = post_text(api_runs, '{"model": "char", ' + items + "}")
    assert response.status_code == 400 and message in response.json()["error"]["message"]
    assert time.process_time() - start < 0.5


def test_commas_and_colons_in_a_text_are_not_values(api_runs):
    body = {"model": "char", "prompt": ["a: b, " * 6000] * 60, "max_tokens": 0}
    assert post_text(api_runs, json.dumps(body)).status_code == 200


@pytest.mark.slow
def test_brackets_in_a_text_are_not_lists(api_runs):
    body = {"model": "char", "prompt": "x[\\" * 9000 + '{"\\', "max_tokens": 1}
    assert post_text(api_runs, json.dumps(body)).status_code == 200
    for end in ('"', "\\", '\\"', '\\"}'):  # a string that does not end
        response = post_text(api_runs, '{"model": "char", "prompt": "' + '\\"[' * 1_000_000 + end)
        assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]
