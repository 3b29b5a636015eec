"""The models the web UI offers: list them, load each one once, rename and delete them."""

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

import lm
from lm import saving
from lm.errors import UserError, one_line
from lm.files import write_text
from lm.invocation import command
from lm.language_model import LanguageModel

SHIPPED = "shipped with lm"
_MAX_LOADED = 4  # models in memory
_MAX_NAME_LENGTH = 80  # characters
_FORBIDDEN_IN_NAMES = set('/\\:*?"<>|')  # special to some file system or shell
_DELETED_PREFIX = ".deleted-"
_LEFTOVER_AGE = 3600.0  # seconds; by then no process is still deleting such a folder

IsBusy = Callable[[Path], bool]  # whether something is writing to a folder

log = logging.getLogger(__name__)


class ModelRegistry:
    """The models in some folders and the one that ships with lm, each with a name.

    Only these can be loaded, whatever name a browser sends.
    """

    def __init__(self, roots: list[Path]):
        self._roots = roots
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, tuple[int, LanguageModel]] = OrderedDict()

    def folders(self) -> dict[str, Path]:
        """The models' folders by name: the newest of each root first, the shipped model last."""
        folders: dict[str, Path] = {}
        for root in self._roots:
            for path in _models_in(root):
                if path not in folders.values():
                    folders[path.name if path.name not in folders else str(path)] = path
        if _is_readable(saving.PRETRAINED):
            folders[SHIPPED] = saving.PRETRAINED
        return folders

    def folder(self, name: str | None) -> Path:
        """The folder of a listed model. Raises UserError for any other name."""
        folders = self.folders()
        if not folders:
            raise UserError(
                f"there is no model yet: train one with `{command('train')}`, then reload this page."
            )
        if not name:
            raise UserError("choose a model first.")
        if name not in folders:
            raise UserError(
                f"there is no model '{one_line(name, 80)}' here: choose another, or reload the page."
            )
        return folders[name]

    def load(self, name: str | None) -> LanguageModel:
        """Load a model, or return the one in memory unless it has been trained further since.

        Raises UserError if the name is not listed or the model cannot be read.
        """
        folder = self.folder(name)
        with self._lock:  # simultaneous requests for a model load it once
            version = _version(folder)
            if folder not in self._loaded or self._loaded[folder][0] != version:
                self._loaded[folder] = version, lm.load(folder)
            self._loaded.move_to_end(folder)
            while len(self._loaded) > _MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[folder][1]

    def fingerprint(self, name: str | None) -> str:
        """Identifies a model: changes when it is trained further or when another model takes its name.

        Raises UserError as `folder` does.
        """
        return _fingerprint(self.folder(name))

    def is_editable(self, name: str | None) -> bool:
        """Whether a model can be renamed and deleted. The shipped model and models passed to --models
        themselves cannot."""
        folder = self.folders().get(name or "")
        return folder is not None and self._is_below_a_root(folder)

    def _is_below_a_root(self, folder: Path) -> bool:
        return folder != saving.PRETRAINED and folder.parent in self._roots

    def rename(
        self, name: str | None, new: str, fingerprint: str, is_busy: IsBusy = lambda folder: False
    ) -> str:
        """Rename a model and its folder; returns its name in the list from now on.

        `fingerprint` is that of the model the user saw. Raises UserError, and then nothing has changed.
        """
        new = _checked_name(new)
        with self._editing(name, fingerprint, is_busy) as folder:
            target = folder.with_name(new)
            if new == folder.name:
                return str(name)  # a path, if an earlier root has a model of the same name
            if new in self.folders() or os.path.lexists(target):
                raise UserError(f"'{new}' already exists: choose another name.")
            os.rename(folder, target)
            self._loaded.pop(folder, None)
        _rename_in_card(target / "README.md", folder.name, new)
        return new

    def delete(self, name: str | None, fingerprint: str, is_busy: IsBusy = lambda folder: False) -> None:
        """Delete a model's folder. Arguments and errors are those of `rename`."""
        with self._editing(name, fingerprint, is_busy) as folder:
            _remove_leftovers(folder.parent)
            # Deleting takes many steps; the rename makes the model disappear in one.
            hidden = Path(tempfile.mkdtemp(prefix=_DELETED_PREFIX, dir=folder.parent))
            try:
                os.rename(folder, hidden / "model")
            except OSError:
                hidden.rmdir()
                raise
            self._loaded.pop(folder, None)
        _remove(hidden)

    @contextmanager
    def _editing(self, name: str | None, fingerprint: str, is_busy: IsBusy) -> Iterator[Path]:
        """The folder of an editable model, while no other request to this server edits one."""
        with self._lock:
            folder = self.folder(name)
            if not self._is_below_a_root(folder):
                raise UserError(f"'{name}' cannot be changed: it is not in one of this page's model folders.")
            if _fingerprint(folder) != fingerprint:
                raise UserError(f"'{name}' has changed in the meantime: check it before you try again.")
            if is_busy(folder):
                raise UserError(f"'{name}' is being trained: wait until training has finished.")
            try:
                yield folder
            except FileNotFoundError as error:  # another server was faster
                raise _gone(folder) from error
            except OSError as error:
                raise UserError(f"cannot change '{name}': {error.strerror}.") from error


def _models_in(root: Path) -> list[Path]:
    """The models in `root`, or `root` itself if it is a model."""
    try:
        paths = [root] if saving.is_model(root) else saving.models_in(root)
    except OSError as error:  # the folder is not readable, or a run has just been deleted
        _warn_once(f"skipping {root}: {error}")
        return []
    return [path for path in paths if _is_readable(path)]


def _is_readable(folder: Path) -> bool:
    """Whether a folder contains a model with a valid config.json."""
    if not saving.is_model(folder):
        return False
    try:
        saving.read_json(folder / "config.json", folder)
    except UserError as error:
        _warn_once(f"skipping {folder}: {error}")
        return False
    return True


@cache  # folders are listed again and again
def _warn_once(message: str) -> None:
    log.warning(message)


def _version(folder: Path) -> int:
    try:
        return os.stat(folder / "model.safetensors").st_mtime_ns
    except OSError as error:
        raise _gone(folder) from error


def _fingerprint(folder: Path) -> str:
    try:
        return f"{os.stat(folder).st_ino}-{_version(folder)}"
    except OSError as error:
        raise _gone(folder) from error


def _gone(folder: Path) -> UserError:
    return UserError(f"the model '{folder.name}' no longer exists: reload the page.")


def _checked_name(name: str | None) -> str:
    """`name` without surrounding white space. Raises UserError if a folder cannot have it."""
    name = str(name or "").strip()
    if not name:
        raise UserError("the new name is empty: enter one.")
    if len(name) > _MAX_NAME_LENGTH:
        raise UserError(f"the new name has {len(name)} characters; the limit is {_MAX_NAME_LENGTH}.")
    wrong = next((c for c in name if c in _FORBIDDEN_IN_NAMES or not c.isprintable()), None)
    if wrong or name.startswith((".", "-")) or name.endswith(".") or name == SHIPPED:
        problem = f"the new name contains {wrong!r}" if wrong else f"'{name}' is not a valid name"
        raise UserError(f"{problem}: use letters, digits, spaces and hyphens.")
    return name


def _rename_in_card(card: Path, old: str, new: str) -> None:
    """Replace a model's name in the title and the example code of its card."""
    try:
        text = card.read_text(encoding="utf-8")
        changed = text.replace(f"\n# {old}\n", f"\n# {new}\n").replace(
            f'lm.load("{old}")', f'lm.load("{new}")'
        )
        if changed != text:
            write_text(card, changed)
    except (OSError, ValueError) as error:  # no program reads the card
        log.warning("%s still has the old name: %s", card, error)


def _remove_leftovers(root: Path) -> None:
    """Remove what is left of deletions that were killed."""
    for path in root.glob(f"{_DELETED_PREFIX}*"):
        try:
            if time.time() - os.stat(path).st_mtime > _LEFTOVER_AGE:
                _remove(path)
        except OSError:  # another server has just removed it
            continue


def _remove(hidden: Path) -> None:
    """Delete a hidden folder. Of a symbolic link in it, only the link is deleted."""
    shutil.rmtree(hidden, ignore_errors=True)
    if hidden.exists():
        log.warning("cannot delete %s: delete it yourself", hidden)
