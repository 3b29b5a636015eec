"""The models that the page offers: finding them, loading each of them once, renaming and deleting them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import lm
from lm import saving
from lm.errors import UserError, one_line
from lm.files import write_text
from lm.invocation import command

if TYPE_CHECKING:
    from lm.language_model import LanguageModel

SHIPPED = "shipped with lm"
NO_MODEL = f"There is no model yet. Train one with `{command('train')}`, then reload this page."
_KEPT = 4  # models held in memory
_LONGEST_NAME = 80  # characters
_NOT_IN_A_NAME = set('/\\:*?"<>|')  # what some file system or shell gives a meaning to
_DELETED = ".deleted-"
_LEFT_OVER = 3600.0  # seconds after which nobody is still deleting what lies in such a folder

Busy = Callable[[Path], bool]  # whether something is writing into a folder

log = logging.getLogger(__name__)


class ModelRegistry:
    """The models below some folders, and the one that ships with lm; each is named by a word.

    Only these can be loaded, whatever name arrives from a browser.
    """

    def __init__(self, folders: list[Path]):
        self._folders = folders
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, tuple[int, LanguageModel]] = OrderedDict()

    def folders(self) -> dict[str, Path]:
        """The models by name, the newest of each folder first, the shipped one last."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in _models_at(folder):
                if path not in found.values():
                    found[path.name if path.name not in found else str(path)] = path
        if _is_readable(saving.PRETRAINED):
            found[SHIPPED] = saving.PRETRAINED
        return found

    def folder(self, name: str | None) -> Path:
        """The folder of a model that is listed. Raises UserError for any other name."""
        found = self.folders()
        if not found:
            raise UserError(NO_MODEL)
        if not name:
            raise UserError("Choose a model first.")
        if name not in found:
            name = one_line(name, 80)
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

    def fingerprint(self, name: str | None) -> str:
        """Tells one model from another that has been given its name, or has been trained further, since.
        Raises UserError as `folder` does."""
        return _stamp(self.folder(name))

    def is_editable(self, name: str) -> bool:
        """Whether a model may be renamed and deleted: not the one that ships, and none that --models names
        itself."""
        folder = self.folders().get(name)
        return folder is not None and self._is_ours(folder)

    def _is_ours(self, folder: Path) -> bool:
        return folder != saving.PRETRAINED and folder.parent in self._folders

    def rename(self, name: str, new: str, stamp: str, busy: Busy = lambda folder: False) -> str:
        """Give a model another name, under which its folder lies from then on; what it is called now.
        `stamp` is that of the model that the person saw. Raises UserError, and then nothing has changed."""
        new = _checked_name(new)
        with self._changing(name, stamp, busy) as folder:
            target = folder.with_name(new)
            if new == folder.name:
                return name
            if new in self.folders() or os.path.lexists(target):
                raise UserError(f"There is something called '{new}' already: choose another name.")
            os.rename(folder, target)
            self._forget(folder)
        _retitle(target / "README.md", folder.name, new)
        return new

    def delete(self, name: str, stamp: str, busy: Busy = lambda folder: False) -> None:
        """Delete a model's folder with all that is in it; the other arguments are those of `rename`.
        Raises UserError, and then nothing has changed."""
        with self._changing(name, stamp, busy) as folder:
            _sweep(folder.parent)
            # It is gone in one step, though it takes many to delete.
            hidden = Path(tempfile.mkdtemp(prefix=_DELETED, dir=folder.parent))
            try:
                os.rename(folder, hidden / "model")
            except OSError:
                hidden.rmdir()
                raise
            self._forget(folder)
        _remove(hidden)

    @contextmanager
    def _changing(self, name: str, stamp: str, busy: Busy) -> Iterator[Path]:
        """The folder of a model that may be changed, while no one else changes one from this page."""
        with self._lock:
            folder = self.folder(name)
            if not self._is_ours(folder):
                raise UserError(f"'{name}' is not in a folder of models of this page: it stays as it is.")
            if _stamp(folder) != stamp:
                raise UserError(f"'{name}' has changed meanwhile: look at it again.")
            if busy(folder):
                raise UserError(f"'{name}' is being trained: wait until that has ended.")
            try:
                yield folder
            except FileNotFoundError as error:  # another page was quicker
                raise UserError(f"The model '{name}' is gone: reload the page.") from error
            except OSError as error:
                raise UserError(f"'{name}' cannot be changed: {error.strerror}.") from error

    def _forget(self, folder: Path) -> None:
        self._loaded.pop(folder, None)


def _models_at(folder: Path) -> list[Path]:
    """The models in `folder`, or `folder` itself where it is a model."""
    try:
        paths = [folder] if saving.is_model(folder) else saving.models_in(folder)
    except OSError as error:  # a folder that may not be read, or a run that has just been deleted
        _warn_once(f"{folder} is left out: {error}")
        return []
    return [path for path in paths if _is_readable(path)]


def _is_readable(folder: Path) -> bool:
    """Whether a folder holds a model whose config.json can be read."""
    if not saving.is_model(folder):
        return False
    try:
        saving.read_json(folder / "config.json", folder)
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


def _stamp(folder: Path) -> str:
    try:
        return f"{os.stat(folder).st_ino}-{_version(folder)}"
    except OSError as error:
        raise UserError(f"The model '{folder.name}' is gone: reload the page.") from error


def _changed(path: Path) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None


def _checked_name(name: str) -> str:
    """A name that a folder may get. Raises UserError."""
    name = str(name or "").strip()
    if not name:
        raise UserError("The new name is empty: type one.")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"The new name has {len(name)} characters, and it may have {_LONGEST_NAME}.")
    wrong = next((c for c in name if c in _NOT_IN_A_NAME or not c.isprintable()), None)
    if wrong or name.startswith((".", "-")) or name.endswith(".") or name == SHIPPED:
        why = f"may not hold {wrong!r}" if wrong else "is none that a folder may have here"
        raise UserError(f"The name {why}: use letters, digits, spaces and hyphens.")
    return name


def _retitle(card: Path, old: str, new: str) -> None:
    """Put the new name where the card of a saved model tells the old one."""
    try:
        text = card.read_text(encoding="utf-8")
        changed = text.replace(f"\n# {old}\n", f"\n# {new}\n").replace(
            f'lm.load("{old}")', f'lm.load("{new}")'
        )
        if changed != text:
            write_text(card, changed)
    except (OSError, ValueError) as error:  # the card is only read by people
        log.warning("%s tells the old name: %s", card, error)


def _sweep(folder: Path) -> None:
    """Remove what a deletion left that was killed."""
    for path in folder.glob(f"{_DELETED}*"):
        if time.time() - (_changed(path) or time.time()) > _LEFT_OVER:
            _remove(path)


def _remove(hidden: Path) -> None:
    """Delete what is hidden; of a link only the link."""
    shutil.rmtree(hidden, ignore_errors=True)
    if hidden.exists():
        log.warning("%s could not be deleted: do it by hand", hidden)
