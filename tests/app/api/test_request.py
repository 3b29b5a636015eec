"""Invalid requests: the API names what is wrong, in OpenAI's format, and never fails otherwise."""

import json
import time
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient

from app.access import MAX_ATTEMPTS
from app.api.request import CompletionRequest, Limits
from app.api.server import Api
from app.registry import ModelRegistry
from app.sampling import SETTINGS
from tests.app.conftest import LIMITS, URL, complete, rejected

INVALID = {
    "model": [5, ["char"], ""],
    "prompt": [5, {}, ["a", 1], ["a", [1]], [["a"]], [True], [1.0], [[1], 2], [10**30], [-1], [[999]]],
    "n": [0, -1, 1.5, "2", True, 9, 9.0, 10**30, 1e300],
    "best_of": [2, "1", True],
    "max_tokens": [-1, 3001, "5", 16.5, -1.0, True],
    "temperature": [-0.1, 2.1, "1", True, [1], 10**400],
    "top_p": [-0.1, 1.1],
    "logprobs": [-1, 6, True],
    "seed": [2**63, 2.0**63, 1.5, "x"],
    "stop": [5, ["a"] * 17, [1], {"a": 1}, "x" * 1001, False],
    "echo": [1, "true"],
    "stream": [1],
    "stream_options": [5, {"usage": True}, {"include_usage": 1}],
    "logit_bias": [5, [1], {"x": 1}, {"-1": 1}, {"1": 101}, {"1": "x"}, {"1": None}, {"999": 1}, {"²": 1}],
    "suffix": ["x", 0, False],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "top_k": [-2, 10**7, 1.5, True],
    "min_p": [-0.1, 2],
    "typical_p": [-1, 1.1],
    "repetition_penalty": [0, 1e9, -1],
    "repetition_window": [0, 10**9],
    "no_repeat_ngram": [-1, 1001],
    "ban": [5, ["x"] * 65],
    "match": [5, ["a", "b"], "x" * 1001],
    "tempature": [1],
    "greedy": [True],
    "messages": [[{"role": "user", "content": "x"}]],
    # Of other servers: these values would have an effect there.
    "store": [True, 0],
    "ignore_eos": [True, 0],
    "min_tokens": [1, False],
    "stop_token_ids": [[1]],
    "skip_special_tokens": [False],
    "response_format": [{"type": "json_object"}],
    "mirostat": [2],
    "repeat_penalty": [1.1],
    "no_repeat_ngram_size": [3],
}


@pytest.mark.parametrize("name", INVALID)
def test_error_names_the_invalid_parameter(client, name):
    for value in INVALID[name]:
        error = rejected(client, 404 if (name, value) == ("model", "") else 400, **{name: value})
        assert error["param"].startswith(name) and name in error["message"], (name, value)
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("typical_p", 0, 1),
        ("min_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
        ("repetition_penalty", 0.01, 100),
        ("top_k", 0, 1_000_000),
        ("repetition_window", 1, 100_000),
        ("no_repeat_ngram", 0, 1000),
    ],
)
def test_bounds_of_a_range_are_accepted(name, lowest, highest):
    for value in (lowest, highest):
        request = CompletionRequest.parse({"model": "m", name: value}, Limits())
        # SamplingConfig excludes a probability of 0; the smallest one leaves only the most likely token, too.
        assert request.settings[name] == (1e-6 if name in ("top_p", "typical_p") and not value else value)


def test_defaults_are_those_of_openai():
    request = CompletionRequest.parse({"model": "m"}, Limits())
    assert request.prompts == [""] and request.max_tokens == 16 and request.n == 1
    assert request.settings["temperature"] == 1.0 and "top_p" not in request.settings
    assert not request.echo and not request.stream and not request.include_usage and request.logprobs is None


EVERYTHING_OFF = {
    "openai": {
        **{"best_of": 1, "echo": False, "frequency_penalty": 0, "logit_bias": {}, "logprobs": None, "n": 1},
        **{"presence_penalty": 0, "seed": None, "stop": None, "stream": False, "stream_options": None},
        **{"suffix": None, "temperature": 1, "top_p": 1, "user": "someone", "metadata": {"run": "7"}},
        **{"store": False, "service_tier": "auto", "response_format": {"type": "text"}},
    },
    "litellm": {"best_of": 1, "echo": False, "logit_bias": {}, "suffix": "", "stop": [], "user": "someone"},
    "vllm": {
        **{
            "top_k": -1,
            "seed": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "length_penalty": 1.0,
            "min_tokens": 0,
        },
        **{"use_beam_search": False, "stop_token_ids": [], "ignore_eos": False, "skip_special_tokens": True},
        **{"spaces_between_special_tokens": True, "include_stop_str_in_output": False, "guided_regex": None},
    },
    "llama.cpp": {
        **{
            "top_k": 0,
            "top_p": 1.0,
            "typical_p": 1.0,
            "mirostat": 0,
            "mirostat_tau": 5.0,
            "mirostat_eta": 0.1,
        },
        **{"repeat_penalty": 1.0, "n_probs": 0, "grammar": "", "cache_prompt": True, "id_slot": -1},
        **{"dry_multiplier": 0.0, "dry_base": 1.75, "xtc_probability": 0.0, "xtc_threshold": 0.1},
    },
    "text-generation-webui": {
        **{
            "tfs": 1,
            "top_a": 0,
            "epsilon_cutoff": 0,
            "eta_cutoff": 0,
            "guidance_scale": 1,
            "do_sample": True,
        },
        **{"negative_prompt": "", "penalty_alpha": 0, "mirostat_mode": 0, "no_repeat_ngram_size": 0},
        **{"ban_eos_token": False, "custom_token_bans": "", "grammar_string": "", "logprobs": False},
    },
    "null": dict.fromkeys((*INVALID.keys() - {"model"}, "prompt_logprobs", "anything")),
    "floats": {"max_tokens": 16.0, "n": 1.0, "best_of": 1.0, "top_k": 0.0, "no_repeat_ngram": 0.0},
    "empty": {"prompt": "", "stop": "", "ban": [""], "match": "", "logit_bias": [], "stream_options": {}},
}


@pytest.mark.parametrize("client_of", EVERYTHING_OFF)
def test_values_that_mean_off_change_nothing(client, client_of):
    defaults = {name: setting.default for name, setting in SETTINGS.items()}
    parsed = [
        asdict(CompletionRequest.parse({"model": "char", **body}, Limits()))
        for body in ({}, EVERYTHING_OFF[client_of])
    ]
    plain, request = ({**fields, "settings": {**defaults, **fields["settings"]}} for fields in parsed)
    assert request == plain
    same = {"seed": 4, "prompt": "The sea"}
    expected = complete(client, **same)["choices"]
    assert complete(client, **{**EVERYTHING_OFF[client_of], **same})["choices"] == expected


def test_up_to_16_stop_strings(client):
    (whole,) = complete(client, prompt="The", seed=1, max_tokens=40)["choices"]
    last = whole["text"][20]
    stops = [*(f"<{i}>" for i in range(15)), last]
    (choice,) = complete(client, prompt="The", seed=1, max_tokens=40, stop=stops)["choices"]
    assert choice["text"] == whole["text"].partition(last)[0] and choice["finish_reason"] == "stop"
    assert "at most 16" in rejected(client, stop=[*stops, "x"])["message"]


def test_long_and_nested_values_are_quoted_briefly(client):
    nested = []
    for _ in range(200):
        nested = [nested]
    for value in (["a"] * 3000, "x" * 15_000, nested, {"a": nested}):
        message = rejected(client, logprobs=value)["message"]
        assert len(message) < 130 and message.endswith("….")


def test_best_of_may_equal_n(client):
    assert len(complete(client, n=2, best_of=2)["choices"]) == 2
    assert len(complete(client, n=2, best_of=1)["choices"]) == 2
    assert "best_of" in rejected(client, n=2, best_of=3)["message"]


@pytest.mark.parametrize("match", ["((", "(a|b", "(?=x)", "[z-a]"])
def test_invalid_pattern_is_rejected(client, match):
    assert "pattern" in rejected(client, match=match)["message"]


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
SENSIBLE = {"max_tokens": st.integers(0, 9), "n": st.integers(1, 3), "prompt": st.text(max_size=20)}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.fixed_dictionaries({}, optional={name: SENSIBLE.get(name, ANYTHING) for name in INVALID}))
def test_any_json_object_is_answered_or_rejected(client, body):
    """The test client raises any exception that would be a traceback in the log."""
    body["model"] = "bpe"
    try:
        data = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    response = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400), response.text


NOT_JSON = [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b'{"n": ' + b"1" * 5000 + b"}", b"[" * 9999]


SURROGATES = [b"\\ud800", b"\\uDFFFx", b"\xed\xa0\x80"]


@pytest.mark.parametrize("data", [*NOT_JSON, *(b'{"model": "char", "prompt": "%s"}' % s for s in SURROGATES)])
def test_body_must_be_a_json_object(client, data):
    response = client.post(URL, content=data, headers={"content-type": "application/json"})
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]


def test_forms_that_any_website_could_send_are_rejected(client):
    response = client.post(URL, content=b'{"model": "char"}', headers={"content-type": "text/plain"})
    assert response.status_code == 400 and "Content-Type" in response.json()["error"]["message"]


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


def test_brackets_in_a_text_are_not_lists(api_runs):
    body = {"model": "char", "prompt": "x[\\" * 9000 + '{"\\', "max_tokens": 1}
    assert post_text(api_runs, json.dumps(body)).status_code == 200
    for end in ('"', "\\", '\\"', '\\"}'):  # a string that does not end
        response = post_text(api_runs, '{"model": "char", "prompt": "' + '\\"[' * 1_000_000 + end)
        assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]


def test_prompt_over_the_limit_is_rejected(client):
    complete(client, prompt="x" * 500)
    assert rejected(client, prompt=["a", "x" * 501])["code"] == "context_length_exceeded"


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
                assert method in response.json()["error"]["message"]


def test_slash_at_the_end_changes_nothing(client):
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()
    assert client.get("/v1/models/char/").json() == client.get("/v1/models/char").json()
    body = {"model": "char", "seed": 1}
    whole, slashed = (client.post(path, json=body, follow_redirects=False) for path in (URL, URL + "/"))
    assert slashed.status_code == 200 and slashed.json()["choices"] == whole.json()["choices"]


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
