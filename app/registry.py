"""The models the web UI offers: list them, load each one once, rename and delete them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import lm
from lm.console.invocation import command
from lm.errors import UserError, one_line
from lm.files.atomic import portable_name, rename, write_text
from lm.files.model_files import read_bytes, read_json, version_of
from lm.language_model import LanguageModel
from lm.storage import model_folder
from lm.storage.model_card import renamed

SHIPPED = model_folder.PRETRAINED.name
_MAX_LOADED = 4  # models in memory
_MAX_NAME_LENGTH = 80  # characters
_DELETED_PREFIX = ".deleted-"
_MAX_CARD = 1 << 20  # bytes
_LEFTOVER_AGE = 3600.0  # seconds; by then no process is still deleting such a folder

IsBusy = Callable[[Path], bool]  # whether something is writing to a folder

log = logging.getLogger(__name__)


class ModelRegistry:
    """The models in some folders and the one that ships with lm, each with a name.

    Only these can be loaded, whatever name a browser sends.
    """

    def __init__(self, roots: list[Path]):
        self._roots = roots
        self._lock = threading.Lock()  # of the two dictionaries
        self._editing_lock = threading.Lock()
        # One per model, so that a model that takes long to load does not keep the others waiting.
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._loaded: OrderedDict[Path, tuple[str, LanguageModel]] = OrderedDict()

    def folders(self) -> dict[str, Path]:
        """The models' folders by name: the newest of each root first, the pretrained model last."""
        folders: dict[str, Path] = {}
        for root in self._roots:
            for path in _models_in(root):
                if path not in folders.values():
                    is_free = path.name not in folders and path.name != SHIPPED
                    folders[path.name if is_free else str(path)] = path
        if model_folder.is_model(model_folder.PRETRAINED) and _is_readable(model_folder.PRETRAINED):
            folders[SHIPPED] = model_folder.PRETRAINED
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
        return self.load_from(self.folder(name))

    def load_from(self, folder: Path) -> LanguageModel:
        """`load` for one of the `folders`, which are not listed again."""
        with self._lock_of(folder):  # simultaneous requests for a model load it once
            version = _version(folder)
            with self._lock:
                loaded = self._loaded.get(folder)
            if loaded is None or loaded[0] != version:
                loaded = version, lm.load(folder)
            with self._lock:
                self._loaded[folder] = loaded
                self._loaded.move_to_end(folder)
                while len(self._loaded) > _MAX_LOADED:
                    self._loaded.popitem(last=False)
            return loaded[1]

    def _lock_of(self, folder: Path) -> threading.Lock:
        with self._lock:
            return self._locks[folder]

    def _forget(self, folder: Path) -> None:
        """Free a model that has another folder now, or none."""
        with self._lock:
            self._loaded.pop(folder, None)

    def fingerprint(self, name: str | None) -> str:
        """Identifies a model: changes when it is trained further or when another model takes its name.

        Raises UserError as `folder` does.
        """
        return _fingerprint(self.folder(name))

    def is_editable(self, name: str | None) -> bool:
        """Whether a model can be renamed and deleted. The pretrained model and models passed to --models
        themselves cannot."""
        folder = self.folders().get(name or "")
        return folder is not None and self._is_below_a_root(folder)

    def _is_below_a_root(self, folder: Path) -> bool:
        return folder != model_folder.PRETRAINED and folder.parent in self._roots

    def rename(
        self, name: str | None, new: str, fingerprint: str, is_busy: IsBusy = lambda folder: False
    ) -> str:
        """Rename a model and its folder; returns its new name.

        `fingerprint` is that of the model the user saw. Raises UserError, and then nothing has changed.
        """
        new = _checked_name(new)
        with self._editing(name, fingerprint, is_busy) as folder:
            target = folder.with_name(new)
            if new in self.folders() or os.path.lexists(target):
                raise UserError(f"'{new}' already exists: choose another name.")
            rename(folder, target)
            self._forget(folder)
        _rename_in_card(target / "README.md", folder.name, new)
        return new

    def delete(self, name: str | None, fingerprint: str, is_busy: IsBusy = lambda folder: False) -> None:
        """Delete a model's folder. Arguments and errors are those of `rename`."""
        with self._editing(name, fingerprint, is_busy) as folder:
            _remove_leftovers(folder.parent)
            # Deleting takes many steps; the rename makes the model disappear in one.
            hidden = Path(tempfile.mkdtemp(prefix=_DELETED_PREFIX, dir=folder.parent))
            try:
                rename(folder, hidden / "model")
            except OSError:
                hidden.rmdir()
                raise
            self._forget(folder)
        _remove(hidden)

    @contextmanager
    def _editing(self, name: str | None, fingerprint: str, is_busy: IsBusy) -> Iterator[Path]:
        """The folder of an editable model, while no other request to this server edits one."""
        folder = self.folder(name)
        with self._editing_lock, self._lock_of(folder):
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
    """The models in `root`, and `root` itself if it is a model."""
    try:
        paths = [*([root] if model_folder.is_model(root) else []), *model_folder.models_in(root)]
    except OSError as error:  # the folder is not readable, or a run has just been deleted
        _warn_once(f"skipping {root}: {error}")
        return []
    return [path for path in paths if _is_readable(path)]


def _is_readable(folder: Path) -> bool:
    """Whether the config.json of a model is valid, and its folder has a name that can be displayed."""
    try:
        problem = _problem(folder, *version_of(folder / "config.json"))
    except OSError as error:  # just deleted
        problem = str(error)
    if problem:
        _warn_once(f"skipping {folder}: {problem}")
    return not problem


@lru_cache(1000)  # folders are listed again and again
def _problem(folder: Path, *config: int) -> str:
    """Why a model cannot be listed, if it cannot; `config` identifies the content of its config.json."""
    try:
        str(folder).encode()
        read_json(folder / "config.json", folder)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except UserError as error:
        return str(error)
    return ""


@cache  # folders are listed again and again
def _warn_once(message: str) -> None:
    log.warning("%s", one_line(message, 300))


def _version(folder: Path) -> str:
    """Identifies the weights in a folder."""
    try:
        return "-".join(map(str, version_of(folder / "model.safetensors")))
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
    wrong = next((c for c in name if portable_name(f"a{c}a") != f"a{c}a" or not c.isprintable()), None)
    if wrong:
        raise UserError(f"the new name contains {wrong!r}: use letters, digits, spaces and hyphens.")
    if name.startswith((".", "-")):
        raise UserError(f"the new name begins with '{name[0]}': begin it with a letter or a digit.")
    if name.endswith("."):
        raise UserError("the new name ends with '.': end it with a letter or a digit.")
    if len(name.encode()) > len(portable_name(name).encode()):
        raise UserError("the new name is too long: use fewer characters.")
    if portable_name(name) != name or name == SHIPPED:  # the name of a device on Windows
        raise UserError(f"the name '{name}' is reserved: choose another one.")
    return name


def _rename_in_card(card: Path, old: str, new: str) -> None:
    """Replace a model's name in its card."""
    try:
        text = read_bytes(card, card.parent, _MAX_CARD).decode()
        changed = renamed(text, old, new)
        if changed != text:
            write_text(card, changed)
    except (UserError, OSError, ValueError) as error:  # no program reads the card
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
