"""Settings are declared with a rule, which validates their values."""

from datetime import date, timedelta

import numpy as np
import pytest
import yaml

from lm.config.schema import (
    CacheConfig,
    DynamicConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    SearchConfig,
    TrainingConfig,
)
from lm.config.settings import (
    Rule,
    arguments,
    build,
    flag_of,
    parse_duration,
    parse_mix,
    parse_temperature,
    settings_of,
)
from lm.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("45", 45), ("1.5m", 90)]
)
def test_parse_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("lr", "1e-3", 0.001),
        ("lr", "0.5", 0.5),
        ("steps", "1e3", 1000),
        ("steps", "7", 7),
        ("max_time", "1e2", 100),
    ],
)
def test_a_number_may_be_a_string_as_yaml_reads_1e_3(name, text, number):
    assert yaml.safe_load("1e-3") == "1e-3"
    assert getattr(build(TrainingConfig, {name: text}), name) == number


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lr", "fast", "--lr must be a number, got 'fast'"),
        ("lr", "nan", "--lr must be finite"),
        ("steps", "1.5", "--steps must be an integer, got 1.5"),
        ("steps", "1e400", "--steps must be an integer"),
        ("dropout", "1e1", r"--dropout must be in \[0, 1\), got 10.0"),
    ],
)
def test_other_strings_are_no_numbers(name, text, message):
    config_class = ModelConfig if name == "dropout" else TrainingConfig
    with pytest.raises(UserError, match=message):
        build(config_class, {name: text})


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_a_gpu_may_be_named_by_its_index(name):
    assert build(TrainingConfig, {"device": name}).device == name


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "cuda:x", "cpu:0", "tpu", "cuda:1\n"])
def test_other_devices_are_rejected(name):
    with pytest.raises(UserError, match="--device must be one of auto, cpu, cuda, cuda:N, mps, got"):
        build(TrainingConfig, {"device": name})


@pytest.mark.parametrize("text", ["", "x", "10 parsecs", "-5m", "m", "1..2s"])
def test_parse_duration_rejects_anything_else(text):
    with pytest.raises(UserError, match="--max-time must be a duration such as 90s, 10m or 2h, got"):
        parse_duration(text)


@pytest.mark.parametrize(
    "value",
    [True, False, [90], {"s": 90}, b"90s", date(2026, 1, 1), timedelta(minutes=2), np.True_],
)
def test_a_duration_of_another_type_is_an_error(value):
    with pytest.raises(UserError, match="--max-time must be a duration such as 90s, 10m or 2h, got"):
        build(TrainingConfig, {"max_time": value})


@pytest.mark.parametrize("name", ["max_time", "lr", "clip", "weight_decay"])
def test_an_integer_that_is_too_large_for_a_float_is_an_error(name):
    with pytest.raises(UserError, match=rf"^{flag_of(name)} must be finite, got inf\.$"):
        build(TrainingConfig, {name: 10**400})


def test_so_is_one_in_a_list():
    with pytest.raises(UserError, match="--mix must be a list of proportions"):
        parse_mix([10**400])
    with pytest.raises(UserError, match="--temperature must be a number or a range"):
        parse_temperature(10**400)


@pytest.mark.parametrize("name", ["out", "init_from", "dataset", "tokenizer", "text_column"])
def test_a_name_has_no_nul_character(name):
    with pytest.raises(UserError, match=rf"^{flag_of(name)} must not contain NUL characters\.$"):
        RunConfig.from_flat({name: "a\0b"})


def test_a_piece_of_text_may_have_one():
    assert build(TrainingConfig, {"sample_prompt": "a\0b"}).sample_prompt == "a\0b"


def test_a_duration_of_nothing_is_out_of_range():
    for text in ("0", "0s", "0h0m", 0):
        with pytest.raises(UserError, match=r"--max-time must be in \(0, 1000000000\], got 0.0\.$"):
            build(TrainingConfig, {"max_time": text})


def test_build_rejects_settings_of_other_classes():
    with pytest.raises(UserError, match="unknown setting 'nonsense'"):
        build(ModelConfig, {"nonsense": 1})


def test_max_time_in_seconds_or_text():
    assert build(TrainingConfig, {"max_time": "2m"}) == build(TrainingConfig, {"max_time": 120})


@pytest.mark.parametrize(
    ("rule", "text", "inside", "outside"),
    [
        (Rule("", minimum=1), "at least 1", [1, 2], [0]),
        (Rule("", above=0), "greater than 0", [0.1, 1e9], [0, -1]),
        (Rule("", minimum=0, below=1), "in [0, 1)", [0, 0.9], [-0.1, 1]),
        (Rule("", above=0, maximum=1), "in (0, 1]", [0.1, 1], [0, 1.1]),
        (Rule("", minimum=0, maximum=1), "in [0, 1]", [0, 1], [-0.1, 1.1]),
    ],
)
def test_range_in_words_and_as_a_check(rule, text, inside, outside):
    assert rule.range == text
    assert all(map(rule.contains, inside)) and not any(map(rule.contains, outside))


def test_a_number_is_within_the_bounds_also_as_a_32_bit_number():
    dropout, top_p = settings_of(ModelConfig)["dropout"], settings_of(SamplingConfig)["top_p"]
    assert (dropout.check(0.999), top_p.check(1e-30)) == (0.999, 1e-30)
    for setting, value in ((dropout, 0.99999999999), (top_p, 1e-50)):
        with pytest.raises(UserError, match=rf"{setting.flag} must be in .* as a 32-bit number, got"):
            setting.check(value)
    with pytest.raises(UserError, match=r"^--top-p must be in \(0, 1\], got 1\.0000001\.$"):
        top_p.check(1.0000001)
    with pytest.raises(UserError, match=r"--lr must be finite as a 32-bit number, got 1e\+39"):
        build(TrainingConfig, {"lr": 1e39})
    assert build(TrainingConfig, {"lr": 1e30}).lr == 1e30


def test_an_error_about_a_large_value_is_short():
    for value in (10**30, 10**5000, "9" * 30, "9" * 5000, "x" * 5000, float("inf")):
        with pytest.raises(UserError) as raised:
            build(TrainingConfig, {"steps": value})
        assert len(str(raised.value)) < 150


def test_an_error_about_a_value_of_several_lines_has_one_line():
    with pytest.raises(UserError, match=r"^--steps must be an integer, got a ndarray\.$"):
        build(TrainingConfig, {"steps": np.zeros((2, 2))})
    with pytest.raises(UserError, match=r"^--max-time must be a duration .*, got 'a ndarray'\.$"):
        build(TrainingConfig, {"max_time": np.zeros((2, 2))})


@pytest.mark.parametrize("config_class", [SamplingConfig, SearchConfig, DynamicConfig, CacheConfig])
def test_numbers_that_are_used_in_formulas_have_two_bounds(config_class):
    for name, setting in settings_of(config_class).items():
        if isinstance(setting.default, float):
            assert None not in (setting.rule.lowest, setting.rule.highest), name


def test_settings_know_their_types_and_keywords():
    settings = settings_of(ModelConfig)
    assert (settings["layers"].type, settings["layers"].keywords) == (int, ())
    assert (settings["dropout"].type, settings["dropout"].keywords) == (float, ("auto",))
    assert (settings["tie"].type, settings["cell"].type) == (bool, str)
    assert settings_of(TrainingConfig)["steps"].keywords == (None,)
    assert settings_of(SamplingConfig)["temperature"].type is object  # a number or a pair of numbers


@pytest.mark.parametrize(
    ("value", "temperature"), [("0.8", 0.8), (1, 1.0), ("0.3:1.0", (0.3, 1.0)), ([0.3, 1], (0.3, 1.0))]
)
def test_parse_temperature(value, temperature):
    assert parse_temperature(value) == temperature


@pytest.mark.parametrize("value", ["hot", "1:2:3", "", True, None, "-1", "inf", "0.5:-1", []])
def test_parse_temperature_rejects_anything_else(value):
    with pytest.raises(UserError, match="--temperature must be"):
        parse_temperature(value)


def test_arguments_are_written_as_a_user_would():
    values = {
        "max_time": 40.0,
        "dropout": 0.5,
        "lr": 1e-05,
        "steps": 7,
        "header": False,
        "dataset": ("a", "-b"),
    }
    assert " ".join(arguments(values)) == (
        "--max-time 40 --dropout 0.5 --lr 1e-05 --steps 7 --no-header --dataset a --dataset=-b"
    )
