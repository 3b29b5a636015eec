"""Invalid arguments of a LanguageModel, and of the functions that take one, are errors of one line."""

import re

import pytest

import lm
from lm.errors import UserError
from lm.insight.surprisal import score_text
from lm.insight.trace import trace_text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.stream("", top_p=7), "--top-p"),
        (lambda model: model.stream("", temperature=-1), "--temperature"),
        (lambda model: model.generate("", num_samples=0), "num_samples must be at least 1, got 0"),
        (lambda model: model.generate("", num_samples=1.5), "num_samples must be a whole number, got 1.5"),
        (lambda model: model.generate("", max_new_tokens=0), "max_new_tokens must be at least 1"),
        (lambda model: model.generate("", max_new_tokens=1.5), "max_new_tokens must be a whole number"),
        (lambda model: model.generate("", alternatives=-1), "alternatives must be at least 0"),
        (lambda model: model.generate("", seed=2**64), "seed must be at most"),
        (lambda model: model.generate("", seed="1"), "seed must be a whole number, got '1'"),
        (lambda model: model.generate("", unknown="no"), "unknown must be one of error, skip, replace"),
        (lambda model: model.generate("", stop=3), "stop must be a string or a list of strings, got 3"),
        (lambda model: model.generate("", ban=["a", 3]), "ban must be a string or a list of strings"),
        (lambda model: model.generate("", match=3), "match must be a string, got 3"),
        (lambda model: model.generate("", logit_bias=[1]), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={"1": 1.0}), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={1.0: 1.0}), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={1: "1"}), "logit_bias must map token ids"),
        (lambda model: model.generate(5), "a string or a list of token ids, got 5"),
        (lambda model: model.generate(None), "a string or a list of token ids, got None"),
        (lambda model: model.generate([1, 2]), "a string or a list of token ids, got 1"),
        (lambda model: model.generate({"a": 1}), "a string or a list of token ids, got {'a': 1}"),
        (lambda model: model.generate("", temprature=3), "unknown setting 'temprature'; did you mean"),
        (
            lambda model: model.generate("", max_tokens=3),
            "'max_tokens'; did you mean 'max_new_tokens'?",
        ),
        (lambda model: model.encode("the", "no"), "unknown must be one of"),
        (lambda model: model.score([1.5]), "a string or a list of token ids"),
        (lambda model: model.score("the", alternatives=-1), "alternatives must be at least 0"),
        (lambda model: lm.evaluate(model, ["the", 1]), "a text or a list of texts"),
        (lambda model: lm.evaluate(model, None), "a text or a list of texts"),
        (lambda model: lm.evaluate(model, {"the": "sea"}), "a text or a list of texts"),
        (lambda model: lm.score_texts(model, None), "a list of texts"),
        (lambda model: lm.score_texts(model, {"the": "sea"}), "a list of texts"),
        (lambda model: lm.score_texts(model, ["the", 1]), "a list of texts"),
        (lambda model: model.clamped(lm.Clamp(0, 1.5, 0)), "unit of a clamp must be a whole number"),
        (lambda model: model.score(5), "a string or a list of token ids, got 5"),
        (lambda model: model.mixed_with([(model, "0.3")]), "models with their weights, such as"),
        (lambda model: model.mixed_with((model, 0.3)), "models with their weights, such as"),
        (lambda model: model.mixed_with([(model, 0.3, 1)]), "models with their weights, such as"),
        (lambda model: model.mixed_with(model), "models with their weights, such as"),
        (lambda model: model.clamped(lm.Clamp(0, 1, "a")), "value of a clamp must be a finite number"),
    ],
)
def test_invalid_arguments_are_user_errors(model, call, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(model)


@pytest.mark.parametrize("call", [lm.evaluate, lm.score_texts, score_text, trace_text])
def test_a_name_is_no_model(call):
    message = r"^a model is needed, such as lm\.load\('runs/mine'\), got 'runs/a'\.$"
    with pytest.raises(UserError, match=message):
        call("runs/a", "the")


@pytest.mark.parametrize("name", [None, [], ["runs/a"], 5])
def test_a_model_has_a_name(name):
    with pytest.raises(UserError, match=r"^lm\.load takes the folder or the Hub id of a model, got "):
        lm.load(name)
