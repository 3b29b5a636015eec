"""Hostile config.json: damaged JSON, and settings and facts that are wrong."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.damage import BIG, BRACKETS, ESCAPE, Damage, Kinds, add_kinds, edited, sparse, with_file

KINDS: Kinds = {}
add = partial(add_kinds, KINDS)
_BOMB = "[" * 1000 + "]" * 1000
_HUGE = 60_000

config = partial(edited, "config.json")


def fact(name: str, value: Any) -> Damage:
    return config(lambda values: values.update({name: value}))


def setting(name: str, value: Any) -> Damage:
    return config(lambda values: values["model"].update({name: value}))


def inside(section: str, name: str, value: Any) -> Damage:
    return config(lambda values: values[section].update({name: value}))


def raw_fact(name: str, value: str) -> Damage:
    """Add a fact whose JSON Python would not write."""

    def damage(folder: Path) -> None:
        text = (folder / "config.json").read_text().rstrip().removesuffix("}")
        (folder / "config.json").write_text(f'{text}, "{name}": {value}}}')

    return damage


add(
    "config",
    "config.json is damaged",
    brackets=with_file("config.json", BRACKETS),
    closed_brackets=with_file("config.json", _BOMB),
    objects=with_file("config.json", '{"a":' * 100_000),
    deep_fact=raw_fact("x", _BOMB),
    empty=with_file("config.json", ""),
    null=with_file("config.json", "null"),
    number=with_file("config.json", "1"),
    list=with_file("config.json", "[]"),
    string=with_file("config.json", '"config"'),
    truncated=lambda folder: os.truncate(folder / "config.json", 50),
    trailing=lambda folder: (folder / "config.json").open("a").write("{}"),
    binary=with_file("config.json", os.urandom(3000)),
    zeros=with_file("config.json", bytes(3000)),
    latin=with_file("config.json", b'{"a": "\xe9"}'),
    utf16=lambda folder: (folder / "config.json").write_text("{}", encoding="utf-16"),
    surrogate=raw_fact("tokenizer", '"\\ud800"'),
    surrogate_key=raw_fact("\\ud800", "1"),
    integer_400=raw_fact("parameters", BIG),
    integer_5000=raw_fact("parameters", "9" * 5000),
    integer_negative=raw_fact("vocab_size", "-" + BIG),
    integer_layers=raw_fact("model", f'{{"layers": {BIG}}}'),
    not_json=with_file("config.json", "layers: 2"),
)
add(
    "config",
    "bytes; the limit is",
    large=with_file("config.json", " " * 5_000_000 + "{}"),
    sparse=sparse("config.json", 100 << 30),
)
add("config", "has no format_version", no_object=with_file("config.json", "{}"))
add(
    "facts",
    "has no format_version",
    version_string=fact("format_version", "1"),
    version_list=fact("format_version", [1]),
    version_null=fact("format_version", None),
)
add("facts", "update lm", version_new=fact("format_version", 10**9))
add(
    "facts",
    "does not describe a model",
    model_missing=config(lambda values: values.pop("model")),
    model_null=fact("model", None),
    model_list=fact("model", [1, 2]),
    model_string=fact("model", "lstm"),
    model_number=fact("model", 5),
    cell_list=setting("cell", ["lstm"]),
    cell_object=setting("cell", {"a": 1}),
    cell_unknown=setting("cell", "transformer"),
    cell_escape=setting("cell", ESCAPE),
    cell_long=setting("cell", "x" * 100_000),
    layers_string=setting("layers", "two"),
    layers_list=setting("layers", [2] * 10_000),
    layers_zero=setting("layers", 0),
    layers_negative=setting("layers", -1),
    layers_billion=setting("layers", 1_000_000_000),
    layers_2_to_62=setting("layers", 2**62),
    layers_half=setting("layers", 2.5),
    layers_true=setting("layers", True),
    layers_nan=setting("layers", float("nan")),
    hidden_zero=setting("hidden_size", 0),
    hidden_auto=setting("hidden_size", "auto"),
    hidden_long=setting("hidden_size", "9" * 5000),
    hidden_object=setting("hidden_size", {}),
    dropout_nan=setting("dropout", float("nan")),
    dropout_infinite=setting("dropout", float("inf")),
    dropout_two=setting("dropout", 2),
    dropout_list=setting("dropout", []),
    residual_string=setting("residual", "yes"),
    tie_string=setting("tie", "yes"),
    direction=setting("direction", "sideways"),
    implementation=setting("cell_implementation", "../../x"),
)
add(
    "facts",
    "do not match its config.json",
    layers_thousand=setting("layers", 1000),
    layers_three=setting("layers", 3),
    hidden_60000=setting("hidden_size", _HUGE),
    hidden_million=setting("hidden_size", 1_000_000),
    hidden_nine=setting("hidden_size", 9),
    embedding_million=setting("embedding_size", 1_000_000),
    tied=setting("tie", True),
    cell_gru=setting("cell", "gru"),
)
add(
    "facts",
    "too large for any network",
    hidden_2_to_62=setting("hidden_size", 2**62),
    embedding_2_to_62=setting("embedding_size", 2**62),
)
add(
    "facts",
    "has the wrong type",
    trained_on_list=fact("trained_on", ["x"]),
    trained_on_string=fact("trained_on", "x"),
    trained_on_number=fact("trained_on", 5),
    dataset_number=inside("trained_on", "dataset", 5),
    dataset_list=inside("trained_on", "dataset", ["x"]),
    documents_string=inside("trained_on", "documents", "many"),
    characters_list=inside("trained_on", "characters", []),
    validation_list=fact("validation", [1]),
    validation_string=fact("validation", "good"),
    loss_string=inside("validation", "loss", "low"),
    loss_list=inside("validation", "bits_per_character", [1]),
)
add(
    "facts",
    "SHA-256 is not the one stored with it",
    digest_wrong=fact("sha256", {"model.safetensors": "0" * 64}),
    digest_list=fact("sha256", ["0", {}, None]),
    digest_number=fact("sha256", 10**15),
    digest_object=fact("sha256", {"model.safetensors": {"a": [{}]}}),
)
add(
    "facts",
    None,
    parameters_string=fact("parameters", "many"),
    parameters_float=fact("parameters", 1e300),
    parameters_list=fact("parameters", [1] * 1000),
    tokenizer_object=fact("tokenizer", {"a": {"b": []}}),
    tokenizer_long=fact("tokenizer", "x" * 500_000),
    tokenizer_escape=fact("tokenizer", ESCAPE),
    vocab_size_negative=fact("vocab_size", -5),
    vocab_size_true=fact("vocab_size", True),
    dataset_long=inside("trained_on", "dataset", "/x" * 100_000),
    dataset_html=inside("trained_on", "dataset", "<script>alert(1)</script>"),
    dataset_escape=inside("trained_on", "dataset", ESCAPE),
    validation_nan=inside("validation", "loss", float("nan")),
    validation_infinite=inside("validation", "perplexity", float("inf")),
    validation_zero=inside("validation", "bits_per_character", 0),
    validation_empty=fact("validation", {}),
    trained_on_null=fact("trained_on", None),
    float_overflow=raw_fact("seconds", "1e999"),
    digest_null=fact("sha256", {"model.safetensors": None}),
    duplicates=raw_fact("format_version", "1"),
    many_facts=fact("x", dict.fromkeys(map(str, range(50_000)), 0)),
)
