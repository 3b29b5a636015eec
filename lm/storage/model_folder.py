"""The folder of a model: its files, and how to find it by its path, its Hub id or as the newest run.

config.json             format_version, the model's settings, its training data, its validation results, the
                        SHA-256 of the weights
model.safetensors       the weights
tokenizer.json          the Hugging Face tokenizers format
tokenizer_config.json   what transformers' AutoTokenizer needs to know in addition; lm does not read it
README.md               model card
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from lm.config.schema import RUNS
from lm.console.wording import similar, suggesting
from lm.errors import ModelError
from lm.files.model_files import is_readable, read_json
from lm.files.paths import expanded
from lm.storage import model_hub

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "README.md")
PRETRAINED = Path(__file__).parents[1] / "pretrained"  # the model that ships with the package
_ON_HUB = re.compile(rf"(?P<repo>{model_hub.HUB_ID.pattern})(@(?P<revision>[\w./-]+))?")


def find_model(
    model: str | Path,
    revision: str | None = None,
    token: model_hub.Token = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: the folder of that name if it exists, else that of "pretrained" or of a Hub id.

    A Hub id may name its revision itself, as in "me/hamlet@v1". Its files are downloaded unless they are
    cached. Raises ModelError if there is no such model, if that on the Hub is not one of lm, or if a model
    that is not on the Hub should have a revision.
    """
    if folder := _local_folder(model):
        if revision is not None:
            raise ModelError(f"{model} is not on the Hub and has no revisions: leave out `revision`.")
        return folder
    on_hub = _ON_HUB.fullmatch(str(model))
    if not on_hub:
        raise ModelError(f"there is no model folder '{model}'{suggesting(_similar_model(model))}")
    if on_hub["revision"] and revision is not None:
        raise ModelError(f"'{model}' names a revision already: leave out `revision`.")
    revision = on_hub["revision"] or revision
    options = revision, token, local_files_only
    try:
        # Other models are rejected before their weights, often many gigabytes, are downloaded.
        read_config(model_hub.download(on_hub["repo"], ["config.json"], *options))
        return model_hub.download(on_hub["repo"], FILES, *options)
    except ModelError as error:
        near = _similar_model(model)
        if not near or not str(error).startswith("there is no folder"):
            raise
        raise ModelError(f"{str(error).rstrip('.')}{suggesting(near)}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a model folder. Raises ModelError if it is missing, damaged, or not that of a
    model whose format this lm reads."""
    facts = read_json(folder / "config.json", folder)
    _check_version(facts, folder)
    return facts


def check_format(folder: Path) -> None:
    """Raise ModelError if this lm does not read the format of the model in a folder, if there is one."""
    try:
        facts = read_json(folder / "config.json", folder)
    except ModelError:  # missing or damaged
        return
    _check_version(facts, folder)


def _check_version(facts: dict[str, Any], folder: Path) -> None:
    version = facts.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{folder / 'config.json'} has no format_version: it does not describe an lm model.")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {version}, but this lm reads at most version {FORMAT_VERSION}:"
            " update lm."
        )


def hub_id(model: str) -> str | None:
    """The id, without a revision, of the Hub model that `find_model` would find under a name; None for a
    folder."""
    on_hub = None if _local_folder(model) else _ON_HUB.fullmatch(model)
    return on_hub and on_hub["repo"]


def _local_folder(model: str | Path) -> Path | None:
    """The folder of a model that is on this machine. Raises ModelError if it is a file."""
    name, path = str(model), expanded(model)
    if name and os.path.isdir(path):  # the path of "" is the current folder
        return path
    if name and os.path.exists(path):
        raise ModelError(f"{model} is a file; name the folder that contains the model.")
    return PRETRAINED if name == PRETRAINED.name else None


def _similar_model(model: str | Path) -> str | None:
    """The saved model, next to a missing one or in runs/, whose name resembles it or begins with it."""
    path = expanded(model)
    found: dict[str, str] = {}
    for folder in (RUNS, path.parent):
        with contextlib.suppress(OSError):
            found |= {each.name: str(each) for each in models_in(folder)}
    name = similar(path.name, found) or next((each for each in found if each.startswith(path.name)), None)
    return found[name] if name else None


def is_model(folder: Path) -> bool:
    """Whether a folder contains a saved model."""
    return all(is_readable(folder / name, folder) for name in ("config.json", WEIGHTS))


def models_in(folder: Path) -> list[Path]:
    """The models directly in `folder`, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and is_model(path)]
    return sorted(found, key=lambda path: (path / WEIGHTS).stat().st_mtime, reverse=True)


def default_model() -> Path:
    """The newest run in runs/, else the pretrained model."""
    return next(iter(models_in(RUNS)), PRETRAINED)
