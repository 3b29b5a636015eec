"""The settings of a run are validated as a whole."""

import pytest
from hypothesis import given, strategies as st

from lm.config.schema import RunConfig
from lm.errors import UserError


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
        ({"tie": 1}, "--tie must be true or false, got 1"),
        ({"hiden_size": 5}, "unknown setting 'hiden_size'; did you mean 'hidden_size'\\?$"),
        ({"steps": 5, "epochs": 2}, "--steps and --epochs cannot be combined"),
    ],
)
def test_error_names_the_setting_and_its_valid_values(values, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_flat(values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": ["a", "b"], "mix": "0.7,0.4"}, "must sum to 1; 0.7,0.4 sums to 1.1"),
        ({"dataset": ["a", "b"], "mix": "0.7,x"}, "--mix must be a list of proportions such as"),
        ({"dataset": ["a", "b"], "mix": "1.5,-0.5"}, r"must be in \(0, 1\], got '1.5,-0.5'"),
        ({"dataset": ["a", "b", "c"], "mix": "0.7,0.3"}, "2 proportions, but --dataset is given 3 times"),
        ({"dataset": "a", "mix": "0.7,0.3"}, "2 proportions, but --dataset is given 1 time; give one"),
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
