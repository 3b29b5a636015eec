"""What the page may be asked to train: which settings there are for a browser, and their limits.

A browser chooses among the texts that were uploaded, the default one and datasets on the Hub. What it
calls the text is never taken for a path: a word such as `etc/passwd` can only be the id of a dataset,
and whoever reads it does so in an empty folder (`Jobs.preview`, `app/jobs/runner.py`), because
`lm.data.sources` would prefer a file of that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lm.config.schema import GROUPS, RunConfig
from lm.config.settings import did_you_mean, settings_of
from lm.errors import UserError, one_line

from .uploads import PREFIX, Texts

TOKENIZERS = ("char", "byte", "bpe", "unigram", "word")
DEFAULT_TEXT = "python"
_RANGES = {  # name -> the least and the largest
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
_WORDS = {  # name -> the most characters
    "dataset_config": 100,
    "text_column": 100,
    "train_split": 100,
    "validation_split": 100,
    "sample_prompt": 500,
}
_OTHERS = (
    "dataset", "encoding_errors", "tokenizer", "cell", "tie", "direction", "optimizer", "schedule", "seed",
    "device", "precision",
)  # fmt: skip
SETTINGS = (*_RANGES, *_WORDS, *_OTHERS)
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FILE_ENDINGS = re.compile(r"\.(json|jsonl|csv|tsv|parquet|txt|zip|gz|bz2|xz|zst)", re.IGNORECASE)


def checked(values: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """All settings of a run, flat, from what a browser sent; the text is still named as there.

    None and empty words are defaults, whole floats are whole numbers. Raises UserError.
    """
    known = {name: setting for group in GROUPS.values() for name, setting in settings_of(group).items()}
    wanted = {}
    for name, value in values.items():
        if name not in SETTINGS:
            raise UserError(f"The page has no setting '{_short(name)}'{did_you_mean(str(name), SETTINGS)}.")
        if name != "dataset" and value is not None and value != "":
            wanted[name] = _converted(name, value, known[name].type)
    dataset = check_text(values.get("dataset") or DEFAULT_TEXT, texts)
    try:
        flat = RunConfig.from_flat(wanted | {"dataset": [dataset]}).flat()
    except UserError as error:  # it quotes what was sent, which may have many lines
        raise UserError(one_line(error)) from error
    for name, (least, most) in _RANGES.items():
        value = flat[name]
        if name in wanted and isinstance(value, (int, float)) and not least <= value <= most:
            raise UserError(f"{_shown(name)} lies between {least:,g} and {most:,g}, not at {value:,}.")
    for name, most in _WORDS.items():
        if isinstance(flat[name], str) and len(flat[name]) > most:
            raise UserError(f"{_shown(name)} has at most {most} characters.")
    if flat["tokenizer"] not in TOKENIZERS:
        raise UserError(f"A token is one of {', '.join(TOKENIZERS)}.")
    flat["dataset"] = [dataset]
    return flat


def check_text(dataset: Any, texts: Texts) -> str:
    """What a browser wants to train on, if it may be. Raises UserError."""
    if isinstance(dataset, (list, tuple)) and len(dataset) == 1:
        (dataset,) = dataset
    if not isinstance(dataset, str):
        raise UserError("Choose one text.")
    dataset = dataset.strip()
    if dataset == DEFAULT_TEXT:
        return dataset
    if dataset.startswith(PREFIX):
        return texts.get(dataset).dataset
    if not _HUB_ID.fullmatch(dataset) or ".." in dataset or _FILE_ENDINGS.search(dataset):
        raise UserError(
            f"'{_short(dataset)}' is no text of this page: upload one, or name a dataset of the Hub like"
            " owner/name."
        )
    return dataset


def resolved(flat: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """The settings as train.py takes them: an uploaded text by its path. Raises UserError."""
    (dataset,) = flat["dataset"]
    dataset = check_text(dataset, texts)
    path = str(texts.get(dataset).path) if dataset.startswith(PREFIX) else dataset
    return {**flat, "dataset": [path]}


def text_name(dataset: str, texts: Texts) -> str:
    """What a person calls it: the file's name, or the id on the Hub."""
    return texts.get(dataset).name if dataset.startswith(PREFIX) else dataset


def _converted(name: str, value: Any, kind: type) -> Any:
    """A value as a browser has it -> as RunConfig wants it. Raises UserError for what is none."""
    if not isinstance(value, (str, int, float)) or (isinstance(value, int) and abs(value) >= 1 << 63):
        raise UserError(f"{_shown(name)} is a word or a number of a sensible size.")
    if isinstance(value, str):
        value = value.strip() if name not in _WORDS else value
        if kind in (int, float) and name != "max_time":  # '256' in a text field
            try:
                value = float(value)
            except ValueError:
                return value
    if kind is int and isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def _shown(name: str) -> str:
    """'hidden_size' -> 'Hidden size'."""
    return name.replace("_", " ").capitalize()


def _short(value: Any) -> str:
    """What somebody sent, as far as it is worth quoting."""
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode()
    return text if len(text) <= 60 else text[:59] + "…"
