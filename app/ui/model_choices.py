"""The models as the choices of a dropdown, "name · GRU · shakespeare · 2.25 bits", and the selected one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from unicodedata import east_asian_width

import gradio as gr

from lm.errors import UserError, one_line
from lm.files.model_files import read_json
from lm.storage.saving import without_paths

from ..registry import ModelRegistry
from .i18n import translate
from .model_facts import section

# In columns, each as wide as an average letter.
_MAX_NAME, _MAX_DATASET, _MAX_BOTH = 17, 12, 27


class Selection(NamedTuple):
    """The model that is selected at the top of the page, for tabs that select another one."""

    model: gr.Dropdown
    outputs: list[Any]  # the dropdown and what shows its facts
    select: Callable[[str | None], Any]  # updates of `outputs`; selects another model if this one is gone


def choices(models: ModelRegistry) -> list[tuple[str, str]]:
    """(label, name) of each model, in the order of the registry."""
    return [(label(name, folder), name) for name, folder in models.folders().items()]


def first_choice(models: ModelRegistry) -> str | None:
    """The name of the first model that can continue a text; of the first one, if none can."""
    folders = models.folders()
    forward = (name for name, folder in folders.items() if _direction(folder) != "backward")
    return next(forward, next(iter(folders), None))


def label(name: str, folder: Path) -> str:
    """The name, cell, dataset and bits per character of a model, as far as config.json has them."""
    config = _config(folder)
    model, trained_on, validation = (section(config, key) for key in ("model", "trained_on", "validation"))
    bits = validation.get("bits_per_character")
    dataset = _shortened(_title(trained_on.get("dataset")), _MAX_DATASET)
    parts = [
        _shortened(name, min(_MAX_NAME, int(_MAX_BOTH - _columns(dataset)))),
        _shortened(str(model.get("cell", "")).upper(), _MAX_DATASET),
        dataset,
        translate("{bits:.2f} bits", bits=bits) if isinstance(bits, (int, float)) else "",
    ]
    return " · ".join(filter(None, parts))


def _direction(folder: Path) -> Any:
    return section(_config(folder), "model").get("direction")


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "config.json", folder)
    except UserError:  # it has just been deleted
        return {}


def short_name(name: str) -> str:
    """A name that leaves room for figures on a phone: a long one loses its middle."""
    return _shortened(name, _MAX_NAME)


def _title(dataset: object) -> str:
    """A dataset, or each of several, without its folder or owner and without the suffix of its file."""
    names = without_paths(dataset).split(" + ") if isinstance(dataset, str) else []
    return " + ".join(PurePath(name).stem or name for name in names)


def _shortened(text: str, columns: int) -> str:
    if _columns(text) <= columns:
        return one_line(text)
    half = (columns - 1) // 2
    return one_line(f"{_beginning(text, columns - 1 - half)}…{_beginning(text[::-1], half)[::-1]}")


def _beginning(text: str, columns: int) -> str:
    """As much of the beginning of `text` as these columns hold."""
    ends = accumulate(map(_columns, text[:columns]))
    return text[: sum(end <= columns for end in ends)]


def _columns(text: str) -> float:
    """About how many columns a text takes."""
    return sum(map(_width, text))


def _width(character: str) -> float:
    if character in "MWmw@%" or east_asian_width(character) in "WF":
        return 2
    return 1.5 if character.isupper() else 1
