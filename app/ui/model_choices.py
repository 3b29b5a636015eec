"""The models as the choices of a dropdown: "name · GRU · shakespeare · 2.25 bits"."""

from __future__ import annotations

from pathlib import Path, PurePath

from lm.errors import UserError, one_line
from lm.model_files import read_json
from lm.saving import without_paths

from ..registry import ModelRegistry
from .i18n import translate
from .model_facts import section

# In characters. Longer names lose their middle, so that they do not push the figures out of view.
_MAX_NAME, _MAX_DATASET = 17, 12


def choices(models: ModelRegistry) -> list[tuple[str, str]]:
    """(label, name) of each model, in the order of the registry."""
    return [(label(name, folder), name) for name, folder in models.folders().items()]


def label(name: str, folder: Path) -> str:
    """The name, cell, dataset and bits per character of a model, as far as config.json has them."""
    try:
        config = read_json(folder / "config.json", folder)
    except UserError:  # it has just been deleted
        config = {}
    model, trained_on, validation = (section(config, key) for key in ("model", "trained_on", "validation"))
    bits = validation.get("bits_per_character")
    parts = [
        _shortened(name, _MAX_NAME),
        _shortened(str(model.get("cell", "")).upper(), _MAX_DATASET),
        _shortened(_title(trained_on.get("dataset")), _MAX_DATASET),
        translate("{bits:.2f} bits", bits=bits) if isinstance(bits, (int, float)) else "",
    ]
    return " · ".join(filter(None, parts))


def _title(dataset: object) -> str:
    """A dataset, or each of several, without its folder or owner and without the suffix of its file."""
    names = without_paths(dataset).split(" + ") if isinstance(dataset, str) else []
    return " + ".join(PurePath(name).stem or name for name in names)


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return one_line(text) if text else ""
    half = (length - 1) // 2
    return one_line(f"{text[: length - 1 - half]}…{text[-half:]}")
