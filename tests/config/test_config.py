"""Settings: one list, checked wherever they come from."""

import subprocess
import sys
import time

import pytest
from hypothesis import given, strategies as st

from lm.config.presets import PRESETS, preset
from lm.config.schema import ModelConfig, RunConfig, TrainingConfig
from lm.config.settings import build, parse_duration
from lm.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("45", 45), ("1.5m", 90)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10 parsecs", "0s", "-5m", "m", "1..2s"])
def test_what_is_no_duration(text):
    with pytest.raises(UserError, match="not a length of time"):
        parse_duration(text)


@given(st.integers(1, 10_000))
def test_flat_settings_come_back(size):
    config = RunConfig.from_flat({"hidden_size": size, "dropout": 0, "steps": 5})
    assert RunConfig.from_flat(config.flat()) == config
    assert config.model.dropout == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 0}, "--hidden-size must be at least 1, not 0"),
        ({"hidden_size": "many"}, "--hidden-size takes a whole number"),
        ({"dropout": 1}, "--dropout must be below 1"),
        ({"lr": 0}, "--lr must be above 0"),
        ({"lr": float("nan")}, "--lr must be a finite number"),
        ({"cell": "transformer"}, "--cell is one of rnn, gru, lstm"),
        ({"tie": 1}, "--tie takes true or false"),
        ({"hiden_size": 5}, "no setting 'hiden_size'; did you mean 'hidden_size'"),
        ({"steps": 5, "epochs": 2}, "--steps and --epochs contradict"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_flat(values)


def test_build_refuses_what_the_class_has_not():
    with pytest.raises(UserError, match="no setting 'nonsense'"):
        build(ModelConfig, {"nonsense": 1})


def test_max_time_may_be_seconds_or_text():
    assert build(TrainingConfig, {"max_time": "2m"}) == build(TrainingConfig, {"max_time": 120})


@pytest.mark.parametrize("script", [["train.py"], ["generate.py"], ["-m", "app"], ["-m", "lm", "evaluate"]])
def test_help_answers_at_once_and_without_torch(script):
    from tests.conftest import ROOT

    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *script, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "usage:" in result.stdout
    assert not {"torch", "datasets", "gradio"} & {
        line.split("|")[-1].strip() for line in result.stderr.splitlines()
    }
    assert time.perf_counter() - begin < 2  # on a busy machine; 0.1 s on a quiet one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": ["a", "b"], "mix": "0.7,0.4"}, "must sum to 1; 0.7,0.4 sums to 1.1"),
        ({"dataset": ["a", "b"], "mix": "0.7,x"}, "--mix takes shares such as"),
        ({"dataset": ["a", "b"], "mix": "1.5,-0.5"}, "lies above 0"),
        ({"dataset": ["a", "b", "c"], "mix": "0.7,0.3"}, "names 2 shares, but there are 3"),
        ({"dataset": []}, "--dataset needs at least one"),
    ],
)
def test_datasets_that_do_not_fit_their_mix(settings, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_flat(settings)


def test_one_dataset_or_several():
    assert RunConfig.from_flat({"dataset": "a"}).data.dataset == ("a",)
    config = RunConfig.from_flat({"dataset": ["a", "b"], "mix": [0.7, 0.3]})
    assert (config.data.dataset, config.data.mix) == (("a", "b"), (0.7, 0.3))
    assert RunConfig.from_flat(config.flat()) == config


def test_auto_is_a_value_where_it_is_allowed():
    assert RunConfig.from_flat({"hidden_size": "auto", "lr": "auto"}).model.hidden_size == "auto"
    with pytest.raises(UserError, match="--layers takes a whole number, not 'auto'"):
        RunConfig.from_flat({"layers": "auto"})


def test_presets_hold_known_settings():
    for name in PRESETS:
        RunConfig.from_flat(preset(name))
    with pytest.raises(UserError, match=r"--preset is one of .*did you mean 'words'"):
        preset("word")
