"""The functions for programs: what they tell is what the model says, and nonsense is one line."""

import json
import math
import shutil

import gradio as gr
import pytest
from gradio.utils import get_function_description
from hypothesis import given, settings, strategies as st

import lm
from app.endpoints import Functions, checked_arguments, told
from app.registry import SHIPPED, ModelRegistry
from lm.errors import UserError


@pytest.fixture(scope="module")
def functions(api_runs):
    return Functions(ModelRegistry([api_runs]))


@pytest.fixture(scope="module")
def model(api_runs):
    return lm.load(api_runs / "char")


def offered(functions):
    return [functions.list_models, functions.continue_text, functions.next_tokens, functions.score_text]


def test_every_model_is_listed_with_what_helps_to_choose_it_and_no_path(functions, api_runs, tmp_path):
    listed = functions.list_models()
    assert {one["name"] for one in listed} == {"char", "bpe", "word", "byte", "back", "cut", SHIPPED}
    shipped = listed[-1]
    assert (shipped["cell"], shipped["tokenizer"], shipped["trained_on"]) == ("lstm", "char", "python")
    assert 1 < shipped["validation"]["bits_per_character"] < 2 and shipped["parameters"] > 900_000
    assert next(one for one in listed if one["name"] == "back")["direction"] == "backward"
    moved = shutil.copytree(api_runs / "char", tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["trained_on"]["dataset"] = str(tmp_path / "secret" / "text.txt")
    (moved / "config.json").write_text(json.dumps(config))
    listed = Functions(ModelRegistry([tmp_path])).list_models()
    assert listed[0]["trained_on"] == "text.txt" and str(tmp_path) not in str(listed)


def test_a_text_grows_into_what_the_model_writes_with_that_seed(functions, model):
    settings = {"temperature": 0.9, "top_k": 20, "seed": 7}
    *_, last = functions.continue_text("char", "The sea ", 300, **settings)
    assert last == model.generate("The sea ", max_new_tokens=300, **settings)[0].text and len(last) == 300
    growing = list(functions.continue_text("char", "The sea ", 4000, **settings))
    assert len(growing) > 3 and len(growing[0]) < len(growing[-1]) == 4000
    assert all(growing[-1].startswith(part) for part in growing)
    stop = last[100:104]
    *_, ended = functions.continue_text("char", "The sea ", 300, stop=stop, **settings)
    assert last.startswith(ended) and stop not in ended


def test_next_tokens_are_the_likeliest_and_their_probabilities(functions, model):
    session = model.session()
    session.feed("The sea ")
    found = functions.next_tokens("char", "The sea ", 5)
    assert [one["token"] for one in found] == [name for name, _, _ in session.next(5)]
    assert [one["probability"] for one in found] == pytest.approx([p for _, _, p in session.next(5)])
    everything = [one["probability"] for one in functions.next_tokens("char", "", 100)]
    assert everything == sorted(everything, reverse=True) and 0.9 < sum(everything) < 1.0001


def test_scores_are_the_bits_of_the_text_and_of_its_words(functions, model):
    text = "The sea was calm.\n"
    scored, nats = functions.score_text("char", text), -sum(score.logprob for score in model.score(text))
    assert scored["bits"] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert scored["bits_per_character"] == pytest.approx(scored["bits"] / len(text))
    assert scored["perplexity"] == pytest.approx(math.exp(nats / len(text)), rel=1e-5)
    assert [one["word"] for one in scored["words"]] == ["The", "sea", "was", "calm."]
    assert sum(one["bits"] for one in scored["words"]) < scored["bits"]  # the spaces are in no word


def test_every_function_and_every_argument_is_described_where_a_program_looks(functions):
    for function in offered(functions):
        description, arguments, returns = get_function_description(told(function))
        assert 60 < len(description) < 300 and description.endswith(".") and returns
        assert all(10 < len(text) < 110 for text in arguments.values()), arguments
        assert "model" not in arguments or "list_models" in arguments["model"]


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-5, 500), st.floats(), st.text(max_size=8),
    st.sampled_from(["char", "back", "cut", "word", SHIPPED, "../char", "/etc/passwd", "a\0b", 10**400]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


@given(
    values=st.lists(VALUES, min_size=9, max_size=9), right=st.integers(0, 2**9 - 1), which=st.integers(1, 3)
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_program_sends_is_answered_or_refused_in_one_line(functions, values, right, which):
    function = offered(functions)[which]
    usual = [["char", "The ", 5, 0.8, 1.0, 0, 0.0, -1, ""], ["char", "The ", 10], ["char", "The "]][which - 1]
    sent = [good if right >> n & 1 else bad for n, (good, bad) in enumerate(zip(usual, values, strict=False))]
    try:
        answer = told(function)(*sent)
        answer = list(answer) if which == 1 else answer
        json.dumps(answer)
    except gr.Error as error:
        assert not error.print_exception and "\n" not in error.message and len(error.message) < 250


@pytest.mark.parametrize(
    "sent, message",
    [
        ({"model": "char", "length": "12"}, "'length' must be a whole number, not '12'."),
        ({"model": "char", "length": True}, "'length' must be a whole number, not True."),
        ({"model": "char", "seed": 1.5}, "'seed' must be a whole number, not 1.5."),
        ({"model": "char", "temperature": float("nan")}, "'temperature' must be a number, not nan."),
        ({"model": "char", "temperature": 10**400}, "'temperature' must be a number, not 1000"),
        ({"model": ["char"]}, "'model' must be a string, not \\['char'\\]."),
        ({"model": None}, "'model' must be a string, not None."),
        ({}, "missing a required argument: 'model'"),
    ],
)
def test_each_argument_is_of_its_type(functions, sent, message):
    with pytest.raises(UserError, match=message):
        checked_arguments(functions.continue_text, **sent)


def test_what_is_none_has_its_default_and_a_whole_float_is_a_whole_number(functions):
    sent = checked_arguments(functions.continue_text, "char", None, 12.0, 1, seed=None)
    assert sent == {"model": "char", "length": 12, "temperature": 1.0}
    assert type(sent["length"]) is int and type(sent["temperature"]) is float
