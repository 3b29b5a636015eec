"""Parameters of requests: the API names those that are invalid; defaults change nothing."""

import json
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from app.api.request import CompletionRequest, Limits
from app.sampling import SETTINGS
from tests.app.conftest import URL, complete, rejected

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
    error = rejected(client, match=match)
    assert "pattern" in error["message"] and error["param"] == "match"


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
SENSIBLE = {"max_tokens": st.integers(0, 9), "n": st.integers(1, 3), "prompt": st.text(max_size=20)}


@pytest.mark.slow
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
