"""The settings that a browser may send for a training job, and their limits.

A browser chooses among the uploaded texts, the default text and datasets on the Hub. What it sends is never
taken for a path: a name such as `etc/passwd` can only be the id of a dataset. Since `lm.data.find_source`
would prefer a file with that name, the text is read in an empty folder (`estimate.py`, `runner.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.config.schema import SETTINGS as ALL_SETTINGS, ModelConfig, RunConfig
from lm.config.settings import flag_of, settings_of
from lm.console.wording import did_you_mean
from lm.data.encodings import check_encoding
from lm.errors import UserError, one_line
from lm.tokenization.vocabulary import KINDS

from .uploads import PREFIX, Uploads

DEFAULT_DATASET = "python"
RANGES = {  # of a job; those of the settings themselves, in lm/config/schema/, are wider
    "max_chars": (1_000, 1_000_000_000),
    "vocab_size": (16, 65_536),
    "min_frequency": (1, 10_000),
    "layers": (1, 4),
    "hidden_size": (16, 2_048),
    "embedding_size": (8, 1_024),
    "dropout": (0, 0.9),
    "input_dropout": (0, 0.9),
    "output_dropout": (0, 0.9),
    "weight_dropout": (0, 0.9),
    "batch_size": (1, 512),
    "bptt": (8, 512),
    "steps": (1, 1_000_000),
    "epochs": (0.01, 1_000),
    "max_time": (10, 24 * 3600),  # seconds
    "lr": (1e-6, 1),
    "weight_decay": (0, 1),
    "patience": (1, 100),
}
MAX_LENGTHS = {  # characters of the free-text settings
    "dataset_config": 100,
    "text_column": 100,
    "json_field": 100,
    "encoding": 40,
    "document_separator": 100,
    "train_split": 100,
    "validation_split": 100,
    "sample_prompt": 500,
}
SETTINGS = (
    *RANGES,
    *MAX_LENGTHS,
    *("dataset", "header", "encoding_errors", "tokenizer", "cell", "tie", "direction"),
    *("optimizer", "schedule", "seed", "device", "precision"),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FILE_SUFFIX = re.compile(r"\.(json|jsonl|csv|tsv|parquet|txt|zip|gz|bz2|xz|zst)", re.IGNORECASE)


def check_settings(values: Mapping[str, Any], uploads: Uploads) -> dict[str, Any]:
    """All settings of a run, flat, from those that a browser sent; `dataset` stays as sent.

    None and "" mean the default; 2.0 counts as an integer. Raises UserError if a setting is unknown,
    invalid or outside the limits of the page.
    """
    sent = {}
    for name, value in values.items():
        if name not in SETTINGS:
            raise UserError(f"unknown setting '{one_line(str(name), 60)}'{did_you_mean(str(name), SETTINGS)}")
        if name != "dataset" and value is not None and value != "":
            sent[name] = _converted(name, value, ALL_SETTINGS[name].type)
    dataset = check_dataset(values.get("dataset") or DEFAULT_DATASET, uploads)
    try:
        flat = RunConfig.from_flat(sent | {"dataset": [dataset]}).flat()
    except UserError as error:  # it quotes the value, which may have several lines
        raise UserError(one_line(error)) from error
    for name, (least, most) in RANGES.items():
        value = flat[name]
        if name in sent and isinstance(value, (int, float)) and not least <= value <= most:
            limits, got = f"[{least:,g}, {most:,g}]", f"{value:,}"
            if name == "max_time":
                limits, got = f"[{in_units(least)}, {in_units(most)}]", in_units(value)
            raise UserError(f"{flag_of(name)} must be in {limits}, got {got}.")
    for name, most in MAX_LENGTHS.items():
        if isinstance(flat[name], str) and len(flat[name]) > most:
            raise UserError(f"{flag_of(name)} can have at most {most} characters.")
    if flat["encoding"] is not None:
        _check_encoding(flat["encoding"])
    if flat["tokenizer"] not in KINDS:
        raise UserError(f"--tokenizer must be one of {', '.join(KINDS)}.")
    flat["dataset"] = [dataset]
    return flat


def check_dataset(dataset: Any, uploads: Uploads) -> str:
    """The dataset that a browser chose. Raises UserError unless it is the default text, an uploaded text or
    the id of a dataset on the Hub."""
    if isinstance(dataset, (list, tuple)) and len(dataset) == 1:
        (dataset,) = dataset
    if not isinstance(dataset, str):
        raise UserError("choose exactly one text.")
    dataset = dataset.strip()
    if dataset == DEFAULT_DATASET:
        return dataset
    if dataset.startswith(PREFIX):
        return uploads.get(dataset).dataset
    if not _HUB_ID.fullmatch(dataset) or ".." in dataset or _FILE_SUFFIX.search(dataset):
        raise UserError(
            f"'{one_line(dataset, 60)}' is not the id of a dataset on the Hub, such as owner/name; write one,"
            " or upload a text."
        )
    return dataset


def with_dataset_path(settings: Mapping[str, Any], uploads: Uploads) -> dict[str, Any]:
    """The settings with the path of an uploaded text in place of its id, as `lm train` takes them. Raises
    UserError if the text no longer exists."""
    dataset = check_dataset(settings["dataset"], uploads)
    path = str(uploads.get(dataset).path) if dataset.startswith(PREFIX) else dataset
    return {**settings, "dataset": [path]}


def starting_from(base: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that starts from the weights of the model in the folder `base`, whose network and
    tokens it has."""
    inherited = {"tokenizer", *settings_of(ModelConfig)}
    own = {name: value for name, value in settings.items() if name not in inherited}
    return own | {"init_from": str(base.absolute())}


def dataset_name(dataset: str, uploads: Uploads) -> str:
    """The name for display: that of the uploaded file, or the id on the Hub."""
    return uploads.get(dataset).name if dataset.startswith(PREFIX) else dataset


def in_units(seconds: float) -> str:
    """A duration as a user writes it: '90s', '2m', '24h'."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length:g}{unit}"
    return f"{seconds:g}s"


def _check_encoding(name: str) -> None:
    try:
        check_encoding(name)
    except UserError as error:  # it quotes the name
        raise UserError(one_line(error)) from error


def _converted(name: str, value: Any, kind: type) -> Any:
    """A value from the browser, converted to what RunConfig takes. Raises UserError if it is neither a
    string nor a number."""
    if not isinstance(value, (str, int, float)) or (isinstance(value, int) and abs(value) >= 1 << 63):
        raise UserError(f"{flag_of(name)} must be text or a number of reasonable size.")
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()  # without halves of surrogate pairs
        value = value.strip() if name not in MAX_LENGTHS or name == "encoding" else value
        if kind in (int, float) and name != "max_time":  # '256' from a text field
            try:
                value = float(value)
            except ValueError:
                return value
    if kind is int and isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
