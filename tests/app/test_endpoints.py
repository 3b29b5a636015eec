"""The endpoints of the page for programs: results as from the Python API, and one-line errors."""

import json
import math
import shutil

import gradio as gr
import pytest
from gradio.utils import get_function_description
from hypothesis import given, settings, strategies as st

import lm
from app.endpoints import Endpoints, as_endpoint, check_arguments
from app.registry import SHIPPED, ModelRegistry
from lm.errors import UserError
from tests.app.conftest import MODELS


@pytest.fixture(scope="module")
def endpoints(api_runs):
    return Endpoints(ModelRegistry([api_runs]))


@pytest.fixture(scope="module")
def model(api_runs):
    return lm.load(api_runs / "char")


def all_functions(endpoints):
    return [endpoints.list_models, endpoints.continue_text, endpoints.next_tokens, endpoints.score_text]


def test_list_models_describes_each_model_without_paths(endpoints, api_runs, tmp_path):
    listed = endpoints.list_models()
    assert {model["name"] for model in listed} == {*MODELS, SHIPPED}
    shipped = listed[-1]
    assert (shipped["cell"], shipped["tokenizer"], shipped["trained_on"]) == ("lstm", "char", "python")
    assert 1 < shipped["validation"]["bits_per_character"] < 2 and shipped["parameters"] > 900_000
    assert next(model for model in listed if model["name"] == "back")["direction"] == "backward"
    moved = shutil.copytree(api_runs / "char", tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["trained_on"]["dataset"] = str(tmp_path / "secret" / "text.txt")
    (moved / "config.json").write_text(json.dumps(config))
    listed = Endpoints(ModelRegistry([tmp_path])).list_models()
    assert listed[0]["trained_on"] == "text.txt" and str(tmp_path) not in str(listed)


@pytest.mark.slow
def test_continue_text_streams_the_text_of_that_seed(endpoints, model):
    settings = {"temperature": 0.9, "top_k": 20, "seed": 7}
    *_, last = endpoints.continue_text("char", "The sea ", 300, **settings)
    assert last == model.generate("The sea ", max_new_tokens=300, **settings)[0].text and len(last) == 300
    growing = list(endpoints.continue_text("char", "The sea ", 4000, **settings))
    assert len(growing) > 3 and len(growing[0]) < len(growing[-1]) == 4000
    assert all(growing[-1].startswith(part) for part in growing)
    stop = last[100:104]
    *_, ended = endpoints.continue_text("char", "The sea ", 300, stop=stop, **settings)
    assert last.startswith(ended) and stop not in ended


def test_next_tokens_are_the_most_likely_with_their_probabilities(endpoints, model):
    session = model.session()
    session.feed("The sea ")
    found = endpoints.next_tokens("char", "The sea ", 5)
    assert [item["token"] for item in found] == [name for name, _, _ in session.next(5)]
    assert [item["probability"] for item in found] == pytest.approx([p for _, _, p in session.next(5)])
    everything = [item["probability"] for item in endpoints.next_tokens("char", "", 100)]
    assert everything == sorted(everything, reverse=True) and 0.9 < sum(everything) < 1.0001


def test_score_text_gives_the_bits_of_the_text_and_its_words(endpoints, model):
    text = "The sea was calm.\n"
    scored, nats = endpoints.score_text("char", text), -sum(score.logprob for score in model.score(text))
    assert scored["bits"] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert scored["bits_per_character"] == pytest.approx(scored["bits"] / len(text))
    assert scored["perplexity"] == pytest.approx(math.exp(nats / len(text)), rel=1e-5)
    assert [item["word"] for item in scored["words"]] == ["The", "sea", "was", "calm."]
    assert sum(item["bits"] for item in scored["words"]) < scored["bits"]  # spaces do not belong to a word


def test_every_function_and_argument_is_described_to_clients(endpoints):
    for function in all_functions(endpoints):
        description, arguments, returns = get_function_description(as_endpoint(function))
        assert 60 < len(description) < 300 and description.endswith(".") and returns
        assert all(10 < len(text) < 110 for text in arguments.values()), arguments
        assert "model" not in arguments or "list_models" in arguments["model"]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-5, 500),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["char", "back", "cut", "word", SHIPPED, "../char", "/etc/passwd", "a\0b", 10**400]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)
VALID = {
    "continue_text": ["char", "The ", 5, 0.8, 1.0, 0, 0.0, -1, ""],
    "next_tokens": ["char", "The ", 10],
    "score_text": ["char", "The "],
}


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(VALID)),
    values=st.lists(VALUES, min_size=9, max_size=9),
    valid=st.lists(st.booleans(), min_size=9, max_size=9),
)
@settings(max_examples=300, deadline=None)
def test_any_arguments_give_a_result_or_a_one_line_error(endpoints, name, values, valid):
    arguments = [
        good if is_valid else any_value
        for good, any_value, is_valid in zip(VALID[name], values, valid, strict=False)
    ]
    try:
        result = as_endpoint(getattr(endpoints, name))(*arguments)
        json.dumps(list(result) if name == "continue_text" else result)
    except gr.Error as error:
        assert not error.print_exception and "\n" not in error.message and len(error.message) < 250


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 2.1, "'temperature' must be from 0 to 2, got 2.1"),
        ("top_p", 0.001, "'top_p' must be from 0.01 to 1, got 0.001"),
        ("top_k", -1, "'top_k' must be at least 0, got -1"),
        ("min_p", 1.5, "'min_p' must be from 0 to 1, got 1.5"),
        ("length", 20_001, "between 1 and 20,000 tokens"),
        ("stop", "x" * 201, "'stop' may have at most 200 characters, got 201"),
    ],
)
def test_arguments_must_be_in_range(endpoints, name, value, message):
    with pytest.raises(UserError, match=message):
        list(endpoints.continue_text("char", **{name: value}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "char", "length": "12"}, "'length' must be an integer, got '12'."),
        ({"model": "char", "length": True}, "'length' must be an integer, got True."),
        ({"model": "char", "seed": 2**53 + 1}, "'seed' must be from -9,007,199,254,740,992 to 9,007,199"),
        ({"model": "char", "seed": 10**5000}, "got a number with hundreds of digits."),
        ({"model": "char", "seed": float("nan")}, "'seed' must be an integer, got nan."),
        ({"model": "char", "seed": 1.5}, "'seed' must be an integer, got 1.5."),
        ({"model": "char", "temperature": float("nan")}, "'temperature' must be a number, got nan."),
        ({"model": "char", "temperature": 10**400}, "'temperature' must be a number, got 1000"),
        ({"model": ["char"]}, "'model' must be a string, got \\['char'\\]."),
        ({"model": None}, "'model' must be a string, got None."),
        ({}, "missing a required argument: 'model'"),
    ],
)
def test_arguments_are_type_checked(endpoints, arguments, message):
    with pytest.raises(UserError, match=message):
        check_arguments(endpoints.continue_text, **arguments)


def test_none_means_the_default_and_integral_floats_are_integers(endpoints):
    checked = check_arguments(endpoints.continue_text, "char", None, 12.0, 1, seed=None)
    assert checked == {"model": "char", "length": 12, "temperature": 1.0}
    assert type(checked["length"]) is int and type(checked["temperature"]) is float
