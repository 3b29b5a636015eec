"""Settings: one list, validated wherever they come from."""

import subprocess
import sys
import time

import pytest
from hypothesis import given, strategies as st

from lm.config.presets import PRESETS, preset
from lm.config.schema import ModelConfig, RunConfig, TrainingConfig
from lm.config.settings import build, parse_duration
from lm.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("45", 45), ("1.5m", 90)]
)
def test_parse_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10 parsecs", "0s", "-5m", "m", "1..2s"])
def test_parse_duration_rejects_anything_else(text):
    with pytest.raises(UserError, match="is not a duration"):
        parse_duration(text)


@given(st.integers(1, 10_000))
def test_flat_settings_round_trip(size):
    config = RunConfig.from_flat({"hidden_size": size, "dropout": 0, "steps": 5})
    assert RunConfig.from_flat(config.flat()) == config
    assert config.model.dropout == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 0}, "--hidden-size must be at least 1, got 0"),
        ({"hidden_size": "many"}, "--hidden-size must be an integer, got 'many'"),
        ({"dropout": 1}, r"--dropout must be in \[0, 1\), got 1.0"),
        ({"lr": 0}, "--lr must be greater than 0, got 0.0"),
        ({"lr": float("nan")}, "--lr must be finite, got nan"),
        ({"cell": "transformer"}, "--cell must be one of rnn, gru, lstm, got 'transformer'"),
        ({"tie": 1}, "--tie must be true or false, got '1'"),
        ({"hiden_size": 5}, "unknown setting 'hiden_size'; did you mean 'hidden_size'"),
        ({"steps": 5, "epochs": 2}, "--steps and --epochs cannot be combined"),
    ],
)
def test_error_names_the_setting_and_its_valid_values(values, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_flat(values)


def test_build_rejects_settings_of_other_classes():
    with pytest.raises(UserError, match="unknown setting 'nonsense'"):
        build(ModelConfig, {"nonsense": 1})


def test_max_time_in_seconds_or_text():
    assert build(TrainingConfig, {"max_time": "2m"}) == build(TrainingConfig, {"max_time": 120})


@pytest.mark.parametrize("script", [["train.py"], ["generate.py"], ["-m", "app"], ["-m", "lm", "evaluate"]])
def test_help_is_fast_and_does_not_import_torch(script):
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *script, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "usage:" in result.stdout
    assert not {"torch", "datasets", "gradio"} & {
        line.split("|")[-1].strip() for line in result.stderr.splitlines()
    }
    assert time.perf_counter() - begin < 2  # on a busy machine; 0.1 s on an idle one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": ["a", "b"], "mix": "0.7,0.4"}, "must sum to 1; 0.7,0.4 sums to 1.1"),
        ({"dataset": ["a", "b"], "mix": "0.7,x"}, "--mix must be a list of proportions such as"),
        ({"dataset": ["a", "b"], "mix": "1.5,-0.5"}, r"must be in \(0, 1\], got '1.5,-0.5'"),
        ({"dataset": ["a", "b", "c"], "mix": "0.7,0.3"}, "2 proportions, but --dataset is given 3 times"),
        ({"dataset": []}, "--dataset needs at least one value"),
    ],
)
def test_mix_must_fit_the_datasets(settings, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_flat(settings)


def test_one_dataset_or_several():
    assert RunConfig.from_flat({"dataset": "a"}).data.dataset == ("a",)
    config = RunConfig.from_flat({"dataset": ["a", "b"], "mix": [0.7, 0.3]})
    assert (config.data.dataset, config.data.mix) == (("a", "b"), (0.7, 0.3))
    assert RunConfig.from_flat(config.flat()) == config


def test_auto_is_valid_only_where_the_setting_allows_it():
    assert RunConfig.from_flat({"hidden_size": "auto", "lr": "auto"}).model.hidden_size == "auto"
    with pytest.raises(UserError, match="--layers must be an integer, got 'auto'"):
        RunConfig.from_flat({"layers": "auto"})


def test_presets_contain_valid_settings():
    for name in PRESETS:
        RunConfig.from_flat(preset(name))
    with pytest.raises(UserError, match=r"--preset must be one of .*did you mean 'words'"):
        preset("word")
