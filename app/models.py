"""The models that the page offers: finding them, and loading each of them once."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import lm
from lm import hub
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.language_model import LanguageModel

SHIPPED = "shipped with lm"
NO_MODEL = "There is no model yet. Train one, with python train.py, then reload this page."
_KEPT = 4  # models held in memory

log = logging.getLogger(__name__)


class Models:
    """The models below some folders, and the one that ships with lm; each is named by a word.

    Only these can be loaded, whatever name arrives from a browser.
    """

    def __init__(self, folders: list[Path]):
        self._folders = folders
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, tuple[int, LanguageModel]] = OrderedDict()

    def found(self) -> dict[str, Path]:
        """The models by name, the newest of each folder first, the shipped one last."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in _models_at(folder):
                if path not in found.values():
                    found[path.name if path.name not in found else str(path)] = path
        if _is_readable(hub.PRETRAINED):
            found[SHIPPED] = hub.PRETRAINED
        return found

    def folder(self, name: str | None) -> Path:
        """The folder of a model that is listed. Raises UserError for any other name."""
        found = self.found()
        if not found:
            raise UserError(NO_MODEL)
        if not name:
            raise UserError("Choose a model first.")
        if name not in found:
            raise UserError(f"There is no model '{name}' here: choose another, or reload the page.")
        return found[name]

    def load(self, name: str | None) -> LanguageModel:
        """The model of that name, read again only if it was trained further. Raises UserError."""
        folder = self.folder(name)
        with self._lock:  # two people who want the same model load it once
            version = _version(folder)
            if folder not in self._loaded or self._loaded[folder][0] != version:
                self._loaded[folder] = version, lm.load(folder)
            self._loaded.move_to_end(folder)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[folder][1]


def _models_at(folder: Path) -> list[Path]:
    """The models in `folder`, or `folder` itself where it is a model."""
    try:
        paths = [folder] if hub.is_model(folder) else hub.models_in(folder)
    except OSError as error:  # a folder that may not be read, or a run that has just been deleted
        _warn_once(f"{folder} is left out: {error}")
        return []
    return [path for path in paths if _is_readable(path)]


def _is_readable(folder: Path) -> bool:
    """Whether a folder holds a model whose config.json can be read."""
    if not hub.is_model(folder):
        return False
    try:
        hub.read_json(folder / "config.json", folder)
    except UserError as error:
        _warn_once(f"{folder} is left out: {error}")
        return False
    return True


@cache  # the folders are looked through again and again
def _warn_once(message: str) -> None:
    log.warning(message)


def _version(folder: Path) -> int:
    try:
        return os.stat(folder / "model.safetensors").st_mtime_ns
    except OSError as error:
        raise UserError(f"The model '{folder.name}' is gone: reload the page.") from error
