"""Folders that declare which files belong to which split.

These are folders written by `save_to_disk` of the `datasets` library, and folders with a README.md that
declares configurations as on the Hugging Face Hub.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.data.archives import member_and_path
from lm.data.datasets_library import datasets_library
from lm.errors import DataError, one_line
from lm.files.model_files import is_inside

if TYPE_CHECKING:
    from lm.data.hub import DataFiles

_CONFIGS = re.compile(r"\s*---[ \t]*\n(?:(?!---).*\n)*?configs[ \t]*:")  # in the front matter of a README.md


def saved_splits(folder: Path) -> dict[str, list[str]] | None:
    """The Arrow files of each split in a folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    None if it is another folder. Raises DataError if a part of it is missing.
    """
    # Unlike `Path.is_file`, this raises no error if the folder cannot be read: files_below does.
    if os.path.isfile(folder / "dataset_dict.json"):
        names = _listed(folder / "dataset_dict.json", "splits", str)
        if odd := next((name for name in names if name != os.path.basename(name)), None):
            raise _incomplete(folder, f"it has no folder '{one_line(odd, 80)}'")
        return {name: _arrow_files(folder / name) for name in names}
    if os.path.isfile(folder / "state.json") and any(folder.glob("*.arrow")):
        return {"train": _arrow_files(folder)}
    return None


def declared_files(folder: Path, name: str | None) -> DataFiles | None:
    """The files of a folder in the configuration `name` of its README.md, as the Hub reads them.

    None if the README.md declares no files. Raises DataError, naming the configurations, if there is none of
    that name or if there are several and none is named.
    """
    try:
        with open(folder / "README.md", encoding="utf-8", errors="replace") as readme:
            if not _CONFIGS.match(readme.read()):
                return None
    except OSError:
        return None
    from lm.data import hub

    datasets = datasets_library(f"reading the configurations in {folder}")
    path = os.path.abspath(folder)
    try:
        if not hub.declares_files(datasets.load.dataset_module_factory(path)):
            return None
        found = hub.files_of(datasets.load_dataset_builder(path, name))
    except Exception as error:
        raise DataError(f"the folder {folder} {hub.problem(datasets, path, name, error)}") from error
    for file in (file for group in found.splits.values() for file in group):
        if not is_inside(os.path.realpath(member_and_path(file)[1]), folder):
            raise DataError(f"the README.md of {folder} names a file outside of the folder: {file}.")
    return found


def _arrow_files(folder: Path) -> list[str]:
    """The files that state.json names. Others in the folder are caches of the library."""
    names = [entry.get("filename") for entry in _listed(folder / "state.json", "_data_files", dict)]
    for name in names:
        if not isinstance(name, str) or name != os.path.basename(name) or not (folder / name).is_file():
            raise _incomplete(folder, f"it has no file '{one_line(str(name), 80)}'")
    return [str(folder / name) for name in names]


def caches(files: list[str]) -> list[str]:
    """Those of the files that are caches of the library: Arrow files next to a state.json that does not name
    them. Raises DataError as `saved_splits` does."""
    arrow = [Path(file) for file in files if file.endswith(".arrow")]
    folders = {file.parent for file in arrow if os.path.isfile(file.parent / "state.json")}
    saved = {folder: set(_arrow_files(folder)) for folder in folders}
    return [str(file) for file in arrow if file.parent in saved and str(file) not in saved[file.parent]]


def _listed(file: Path, key: str, kind: type) -> list[Any]:
    """The list in a JSON file. Raises DataError."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise _incomplete(file.parent, f"its {file.name} cannot be read")
    return value


def _incomplete(folder: Path, why: str) -> DataError:
    return DataError(f"{folder} is not a whole dataset as `save_to_disk` writes it: {why}; save it again.")
