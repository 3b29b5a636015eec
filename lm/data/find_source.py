"""Finds the text and the tokenizer that `--dataset` and `--tokenizer` name."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config.schema import DataConfig
from lm.console.streams import read_input
from lm.console.wording import did_you_mean, similar, suggesting
from lm.data import archives
from lm.data.cache import temporary
from lm.data.compression import without_compression
from lm.data.dataset_folders import caches, declared_files, saved_splits
from lm.data.encodings import check_encoding
from lm.data.listing import (
    TABLES,
    Listing,
    file_id,
    files_below,
    files_matching,
    is_dangling,
    kind_of,
    list_files,
    similar_path,
    standard_input_id,
)
from lm.data.separation import check_separator
from lm.data.source import OPTIONS, Source, check_settings
from lm.data.values import listed
from lm.errors import DataError, UserError
from lm.files.json_types import has_type
from lm.files.paths import expanded
from lm.tokenization.vocabulary import KINDS

if TYPE_CHECKING:
    from lm.data.hub import DataFiles

# The kinds that lm reads itself, and the ends of the names of their files.
_OWN_KINDS, _OWN_SUFFIXES = {*TABLES.values(), "text"}, {*TABLES, ".txt"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_sources(
    config: DataConfig,
    revisions: Sequence[str | None] | None = None,
    *,
    of_run: bool = False,
    outputs: Iterable[str] = (),
) -> list[Source]:
    """Find all texts, at the given commits; each file is read only once.

    `of_run`: the settings come from a run. Then none has to apply, because an earlier version may have
    ignored it. Raises UserError if a text cannot be found or is one of the `outputs`, the files that will be
    written, or if a setting applies to none of the texts.
    """
    if config.dataset.count("-") > 1:
        raise UserError("--dataset - can be given only once: standard input has one text.")
    sources: list[Source] = []
    try:
        _add_all(sources, config, revisions)
        if not of_run:
            check_settings(sources, config)
        _check_outputs(sources, config, outputs)
    except BaseException:
        for source in sources:
            source.forget()
        raise
    return sources


def recorded_revisions(config: DataConfig, trained_on: Mapping[str, Any]) -> list[str | None]:
    """The commit at which a model has read each text, as `trained_on` in its config.json says; None for those
    that are not on the Hub."""
    recorded: Any = trained_on.get("hub_datasets")
    if not has_type(recorded, list[dict[str, Any]]):
        recorded = []
    found = {str(each.get("id")): str(each["revision"]) for each in recorded if each.get("revision")}
    return [found.get(name) for name in config.dataset]


def _add_all(sources: list[Source], config: DataConfig, revisions: Sequence[str | None] | None) -> None:
    seen: set[Any] = set()
    for dataset in config.dataset:
        if revisions:
            config = dataclasses.replace(config, dataset_revision=revisions[len(sources)])
        source = find_source(dataset, config)
        files = [file for group in source.files.values() for file in group]
        repeated = [file for file in files if file_id(file) in seen]
        if len(repeated) == len(files) and repeated:
            if config.mix:
                raise UserError(f"--mix needs different texts; an earlier one contains {dataset} already.")
            continue
        seen |= set(map(file_id, files)) - {None}  # files on the Hub have no id
        sources.append(_without(source, repeated) if repeated else source)


def _check_outputs(sources: list[Source], config: DataConfig, outputs: Iterable[str]) -> None:
    """Raise UserError if a file that will be written is one that is read, or an archive that contains it."""
    files = (file for source in sources for group in source.files.values() for file in group)
    read = {file_id(archives.member_and_path(file)[1]) for file in files}
    if "-" in config.dataset:
        read.add(standard_input_id())
    for file in outputs:
        identity = file_id(str(expanded(file)))
        if identity and identity in read:
            raise UserError(
                f"{file} is an input and would be overwritten by the table: choose another output file."
            )


def _without(source: Source, repeated: list[str]) -> Source:
    """The source without files that another one has."""
    rest = source.listing or Listing(source.files)
    rest.leave_out("repeated", repeated)
    return dataclasses.replace(source, files=rest.splits, listing=rest)


def find_source(dataset: str, config: DataConfig) -> Source:
    """Find the text that `dataset`, one of `config.dataset`, names. Raises UserError if there is none."""
    if config.document_separator is not None:
        check_separator(config.document_separator)
    if config.encoding is not None:
        check_encoding(config.encoding)
    if dataset == "python":
        library = _local_source("python", {"train": python_library()}, config)
        warnings = ("python is the source code of Python's library; ./python is what has that name here.",)
        return dataclasses.replace(library, warnings=warnings) if os.path.exists("python") else library
    if dataset == "-":
        if config.streaming:
            raise DataError("standard input can be read only once: leave out --streaming.")
        return _standard_input_source(config)
    path = expanded(dataset)
    if os.path.isfile(path):
        return _file_source(path, config)
    if os.path.isdir(path):
        return _folder_source(path, config)
    if is_dangling(path):
        raise DataError(
            f"the link {path} leads to a missing file, {os.readlink(path)}: fetch it, for example with"
            " `git annex get`, or correct the link."
        )
    if os.path.exists(path):
        raise DataError(f"{path} is neither a file nor a folder; --dataset - reads standard input.")
    if glob.has_magic(dataset):
        return _glob_source(dataset, config)
    looks_like_a_file = archives.suffix(dataset) in {*_OWN_SUFFIXES, ".zip", ".tar"}
    near = similar_path(path)
    if not _HUB_ID.fullmatch(dataset) or looks_like_a_file:
        raise DataError(f"there is no file or folder '{dataset}'{suggesting(near)}")
    try:
        return _hub_source(dataset, config)
    except DataError as error:
        if not near or not str(error).startswith("there is no file"):
            raise
        raise DataError(f"{str(error).rstrip('.')}{suggesting(near)}") from error


def _standard_input_source(config: DataConfig) -> Source:
    with ExitStack() as stack:
        copy = stack.enter_context(temporary("stdin"))
        _copy_standard_input(copy)
        source = _local_source("stdin", {"train": [str(copy)]}, config)
        return dataclasses.replace(source, copy=copy, copies=stack.pop_all())


def _file_source(path: Path, config: DataConfig) -> Source:
    name = Path(without_compression(path.name)).stem
    if not archives.is_archive(str(path)):
        return _local_source(name, {"train": [str(path)]}, config)
    members = archives.archive_members(str(path))
    if not members:
        raise DataError(f"the archive {path} contains no files, or only hidden ones.")
    return _listed_source(name, list_files(members, "", {}), config)


def _folder_source(path: Path, config: DataConfig) -> Source:
    name = path.resolve().name
    if saved := saved_splits(path):
        return _listed_source(name, Listing(saved), config)
    if declared := declared_files(path, config.dataset_config):
        return _declared_source(name, declared, config)
    files, skipped = files_below(path)
    found = list_files(files, f"{path}{os.sep}", {**skipped, "cache": caches(files)})
    if not found.splits and not found.left_out:
        raise DataError(f"the folder {path} contains no files, or only hidden ones.")
    return _listed_source(name, found, config)


def _glob_source(pattern: str, config: DataConfig) -> Source:
    path = str(expanded(pattern))
    matches, skipped = files_matching(path)
    if not matches and not skipped["missing"]:
        raise DataError(f"no file matches '{pattern}'.")
    if matches and all(map(archives.is_archive, matches)):
        matches = [member for file in matches for member in archives.archive_members(file)]
    folder = re.match(r"[^*?\[]*(?=[/\\])", path)
    name = Path(folder[0]).name if folder else ""
    return _listed_source(name or "files", list_files(matches, None, skipped), config)


def find_tokenizer(name: str) -> Path:
    """The tokenizer.json that `name` is, contains or, as a Hub model, offers. Raises UserError."""
    path = expanded(name)
    path = path / "tokenizer.json" if os.path.isdir(path) else path
    if os.path.isfile(path):
        return path
    if path.suffix == ".json" or not _HUB_ID.fullmatch(name):
        files = [*KINDS, *(str(other) for other in path.parent.glob("*.json"))]
        raise UserError(f"there is no tokenizer file '{name}'{did_you_mean(name, files)}")
    from lm.data.hub import fetch_tokenizer

    try:
        return Path(fetch_tokenizer(name))
    except UserError as error:
        allowed = f"--tokenizer must be {', '.join(KINDS)}, a tokenizer.json or a Hub model"
        if near := similar(name, KINDS):
            raise UserError(f"{allowed}, got '{name}'{suggesting(near)}") from error
        raise UserError(f"{allowed}: {error}") from error


def python_library() -> list[str]:
    """The source files of the running Python's standard library without its tests, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    excluded = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in excluded]  # site-packages may be large
        files += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def _listed_source(name: str, found: Listing, config: DataConfig) -> Source:
    """A source of files that were found in one place. Raises DataError if none of them is text."""
    if not found.splits:
        links = "; to read an outside file, pass the link itself" if "outside" in found.left_out else ""
        if "missing" in found.left_out:
            links += "; fetch the files that the links lead to, for example with `git annex get`"
        raise DataError(f"{name} contains no text: {found.row().removeprefix('; ')}{links}.")
    source = _local_source(name, found.splits, config)
    return dataclasses.replace(source, listing=found, warnings=tuple(found.warnings()))


def _local_source(name: str, files: dict[str, list[str]], config: DataConfig) -> Source:
    """A source of files on this disk. Raises DataError unless they are all of one kind."""
    return Source(name, _kind_of_all(name, files), files, {}, config)


def _kind_of_all(name: str, files: dict[str, list[str]]) -> str:
    """The kind of all these files, by their names. Raises DataError unless it is one."""
    kinds = {kind_of(file) for group in files.values() for file in group}
    if len(kinds) > 1:
        raise DataError(
            f"{name} contains files of several kinds ({', '.join(sorted(kinds))});"
            " choose one with a glob such as 'folder/*.txt'."
        )
    if not kinds:
        raise DataError(f"{name} contains no files.")
    return kinds.pop()


def _declared_source(name: str, found: DataFiles, config: DataConfig) -> Source:
    """A source of the files of a configuration, of a Hub dataset or in the README.md of a folder."""
    kind, options = found.kind, found.options
    files = (file for group in found.splits.values() for file in group)
    if kind in _OWN_KINDS and all(archives.suffix(file) in _OWN_SUFFIXES for file in files):
        # `datasets` reads the files of all configurations with the loader for those of the first.
        kind = _kind_of_all(name, found.splits)
        options = options if kind == found.kind else {}
    unused = sorted(set(options) - OPTIONS) if kind in _OWN_KINDS else []
    warnings = (f"lm ignores {listed(unused)} in the README.md of {name}.",) if unused else ()
    listing = Listing(found.splits)
    return Source(
        name, kind, found.splits, options, config, configured=True, listing=listing, warnings=warnings
    )


def _hub_source(dataset: str, config: DataConfig) -> Source:
    from lm.data import hub

    found = hub.find(dataset, config)
    source = _declared_source(dataset.split("/")[-1], found, config)
    facts = {"id": dataset, "revision": found.revision, "config": found.name, **found.about}
    return dataclasses.replace(source, hub={dataset: facts})


def _copy_standard_input(copy: Path) -> None:
    """Copy standard input to a file, because it has to be hashed before it is read."""
    if sys.stdin.isatty():
        keys = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
        print(f"Reading text from standard input; end it with {keys}.", file=sys.stderr)
    with open(copy, "wb") as opened:
        while block := read_input(1 << 20):
            opened.write(block)
