"""Where text and tokenizers come from: finds what `--dataset` and `--tokenizer` name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import hashlib
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lm.config.schema import DataConfig
from lm.config.settings import did_you_mean
from lm.data import columns, reading, tables
from lm.data.cache import PARTIAL, cache_folder, known, writing_to_cache
from lm.data.decoding import Decoded, check_encoding
from lm.data.files import (
    TABLES,
    Listing,
    file_id,
    files_below,
    files_matching,
    kind_of,
    list_files,
    similar_files,
)
from lm.data.progress import ProgressCallback
from lm.data.separation import check_separator
from lm.errors import DataError, UserError, one_line
from lm.files import write_text
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.vocabulary import KINDS

# `lm.data.hub` takes a tenth of a second to import; only text from the Hub needs it.
if TYPE_CHECKING:
    import datasets

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_BATCH = 256  # rows
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A text that has been found but not read yet."""

    name: str  # short, for messages and the name of the run folder
    identity: str  # changes with the text
    kind: str  # "text", "csv", "json", "parquet", or the loader of `datasets` that reads the files
    files: dict[str, list[str]]  # split -> paths, members of archives, or addresses on the Hub
    options: dict[str, Any]  # of that loader, as a Hub dataset sets them
    config: DataConfig
    copy: Path | None = None  # of standard input
    revision: str | None = None  # the commit, if it comes from the Hub
    listing: Listing | None = None  # of a folder, a glob or an archive
    decoded: Decoded = dataclasses.field(default_factory=Decoded)  # what reading did to the characters
    # How each split of a table was read, for the report.
    notes: dict[str, columns.Notes] = dataclasses.field(default_factory=dict, compare=False)

    def check(self, split: str) -> None:
        """Raise DataError if there is no such split."""
        if split not in self.files:
            raise DataError(f"{self.name} has no split '{split}'; it has {', '.join(self.files)}.")

    def fetched(self, split: str, progress: ProgressCallback) -> Source:
        """The same source with the files of a split downloaded. Raises DataError."""
        self.check(split)
        files = self.files[split]
        if any(map(reading.is_remote, files)):
            from lm.data.hub import fetch

            files = [fetch(file, progress) for file in files]
        files = list(_members(files))
        return dataclasses.replace(self, files=self.files | {split: files})

    def size(self, split: str) -> int | None:
        """The size of the text in bytes, or None if it is a table or compressed."""
        if self.kind != "text" or any(reading.compression_of(f) or "::" in f for f in self.files[split]):
            return None
        return sum(os.path.getsize(file) for file in self.files[split] if os.path.exists(file))

    def read(self, split: str) -> Iterator[bytes]:
        """The documents of a split in pieces: UTF-8 with SEPARATOR between documents. Raises DataError."""
        if self.kind == "text":
            yield from self._text(self.files[split])
            return
        written = False
        for batch in _batches(filter(None, self.texts(split))):
            yield (SEPARATOR if written else b"") + SEPARATOR.join(map(str.encode, batch))
            written = True

    def texts(self, split: str) -> Iterator[str]:
        """The text of each row of a split, empty where there is none; of text files, each document.

        Raises DataError.
        """
        self.check(split)
        notes = self.notes[split] = columns.Notes()
        with self.explaining_errors(split):
            if self.kind == "text":
                yield from self._documents(self.files[split])
                return
            read = functools.partial(self._rows, self.files[split], notes)
            column, errors = self.config.text_column, self.config.encoding_errors
            yield from columns.texts(read, self.name, column, errors, notes, self.kind == "parquet")

    def text_rows(self, split: str) -> datasets.IterableDataset:
        """A split as a dataset of the `datasets` library, streamed, with a single column, "text".

        Raises DataError if there is no text, UserError if the library is not installed.
        """
        library = reading.datasets_library("--streaming")
        files, column = self.files[split], None
        if self.kind != "text":
            read = functools.partial(self._rows, files, columns.Notes())
            column, rows = columns.choose(read, self.name, self.config.text_column, columns.Notes())
            columns.text_at(next(rows, {}), column, self.name, columns.Notes())
        features = library.Features({"text": library.Value("string")})
        return library.IterableDataset.from_generator(
            self._stream, features, gen_kwargs={"files": files, "column": column}, split=split
        )

    def _stream(self, files: list[str], column: str | None) -> Iterator[dict[str, str]]:
        """The rows of `text_rows` in some of its files."""
        if column is None:
            yield from ({"text": text} for text in self._documents(files))
            return
        notes = columns.Notes()
        wanted = {column, *columns.parents(column)}
        for number, row in enumerate(self._rows(files, notes, wanted), start=1):
            text = columns.text_at(row, column, self.name, notes)
            where = f"row {number:,} of {self.name}"
            yield {"text": columns.without_surrogates(text, where, self.config.encoding_errors)}

    def _documents(self, files: list[str]) -> Iterator[str]:
        """The documents in some of the text files."""
        for file in _members(files):
            whole = b"".join(self._text([file]))
            yield from (document.decode() for document in whole.split(SEPARATOR) if document)

    def _text(self, files: list[str]) -> Iterator[bytes]:
        """The documents in some of the text files, in pieces."""
        config = self.config
        return reading.read_text_files(
            files, config.encoding, config.encoding_errors, config.document_separator, self.decoded
        )

    def _rows(
        self, files: list[str], notes: columns.Notes, wanted: set[str] | None = None
    ) -> Iterator[columns.Row]:
        """The rows of some of the files, with at least the columns that are `wanted`."""
        config, given = self.config, self.options
        options = tables.Options(
            header=config.header,
            json_field=config.json_field or given.get("field"),
            encoding=config.encoding or given.get("encoding"),
            encoding_errors=config.encoding_errors,
            delimiter=given.get("delimiter") or given.get("sep"),
            names=tuple(given.get("names") or given.get("column_names") or ()),
        )
        for file in _members(files):
            if self.kind in tables.KINDS:
                rows = tables.read_rows(file, self.kind, options, notes, self.decoded, wanted)
            else:
                rows = self._loaded_rows(file)
            yield from columns.noting(rows, file, notes)

    def _loaded_rows(self, file: str) -> Iterator[columns.Row]:
        """The rows of a file in a format that only the `datasets` library reads."""
        library = reading.datasets_library(f"reading {self.name}")
        rows = library.load_dataset(
            self.kind, data_files={"train": [file]}, split="train", streaming=True, **self.options
        )
        for table in rows.with_format("arrow").iter(batch_size=_BATCH):
            yield from table.to_pylist()

    def warnings(self) -> list[str]:
        """What to know about the tables that were read."""
        found = (warning for notes in self.notes.values() for warning in notes.facts(self.name)["warnings"])
        return list(dict.fromkeys(found))

    @contextlib.contextmanager
    def explaining_errors(self, split: str) -> Iterator[None]:
        """Turn any error of a loader into a DataError that says what is wrong with the files."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the loaders raise whatever their format's library raises
            raise self._explain(split, error) from error

    def forget(self) -> None:
        """Delete the copy of standard input, which is needed no longer."""
        if self.copy:
            self.copy.unlink(missing_ok=True)

    def _explain(self, split: str, error: Exception) -> DataError:
        missing = [file for file in self.files[split] if "::" not in file and not os.path.exists(file)]
        if missing and not any(map(reading.is_remote, missing)):
            return DataError(f"{missing[0]} was deleted before it could be read.")
        cause = one_line(error.__cause__ or error).rstrip(".")
        if missing:  # files that are streamed from the Hub
            from lm.data.hub import is_network_error

            if is_network_error(error):
                return DataError(f"the Hub cannot be reached to continue reading {self.name}: {cause}.")
        return DataError(f"{self.name} cannot be read as {self.kind}: {cause}.")


def _members(files: list[str]) -> Iterator[str]:
    """The files, and in place of archives the files in them."""
    return (member for file in files for member in reading.members(file))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts with about a megabyte each."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= 1 << 20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def find_sources(config: DataConfig, revisions: Sequence[str | None] | None = None) -> list[Source]:
    """Find all texts, at the given commits; each file is read only once. Raises UserError."""
    sources: list[Source] = []
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
    return sources


def _without(source: Source, repeated: list[str]) -> Source:
    """The source without files that another one has."""
    rest = source.listing or Listing(source.files)
    rest.leave_out("repeated", repeated)
    return dataclasses.replace(source, files=rest.splits, listing=rest, identity=_identity(rest.splits))


def find_source(dataset: str, config: DataConfig) -> Source:
    """Find the text that `dataset`, one of `config.dataset`, names. Raises UserError if there is none."""
    if config.document_separator is not None:
        check_separator(config.document_separator)
    source = _find(dataset, config)
    if config.document_separator is not None and source.kind != "text":
        raise UserError(
            f"--document-separator is for text files; in the table {source.name}, each row is a document."
        )
    return source


def _find(dataset: str, config: DataConfig) -> Source:
    if config.encoding is not None:
        check_encoding(config.encoding)
    if dataset == "python":
        return _local_source("python", {"train": python_library()}, config)
    if dataset == "-":
        if config.streaming:
            raise DataError("standard input can be read only once: leave out --streaming.")
        copy = _copy_standard_input()
        return dataclasses.replace(_local_source("stdin", {"train": [str(copy)]}, config), copy=copy)
    path = Path(dataset).expanduser()
    if path.suffix.lower() == ".zip" and path.is_file():
        return _listed_source(path.stem, list_files(reading.members(str(path)), ""), config)
    if path.is_file():
        name = Path(reading.without_compression(path.name)).stem
        return _local_source(name, {"train": [str(path)]}, config)
    if path.is_dir():
        found = list_files(files_below(path), f"{path}{os.sep}")
        if not found.splits and not found.left_out:
            raise DataError(f"the folder {path} is empty.")
        return _listed_source(path.resolve().name, found, config)
    if glob.has_magic(dataset):
        matches = files_matching(str(path))
        if not matches:
            raise DataError(f"no file matches '{dataset}'.")
        folder = re.match(r"[^*?\[]*(?=[/\\])", str(path))
        name = Path(folder[0]).name if folder else ""
        return _listed_source(name or "files", list_files(matches, None), config)
    looks_like_a_file = Path(reading.without_compression(dataset)).suffix in {*TABLES, ".txt", ".zip"}
    similar = similar_files(path)
    if not _HUB_ID.fullmatch(dataset) or looks_like_a_file:
        raise DataError(f"there is no file or folder '{dataset}'{similar or '.'}")
    try:
        return _hub_source(dataset, config)
    except DataError as error:
        if not similar or not str(error).startswith("there is no file"):
            raise
        raise DataError(f"{str(error).rstrip('.')}{similar}") from error


def find_tokenizer(name: str) -> Path:
    """The tokenizer.json that `name` is, contains or, as a Hub model, offers. Raises UserError."""
    path = Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if path.is_file():
        return path
    if path.suffix == ".json" or not _HUB_ID.fullmatch(name):
        files = [*KINDS, *(str(other) for other in path.parent.glob("*.json"))]
        raise UserError(f"there is no tokenizer file '{name}'{did_you_mean(name, files) or '.'}")
    from lm.data.hub import fetch_tokenizer

    try:
        return Path(fetch_tokenizer(name))
    except UserError as error:
        allowed = f"--tokenizer must be {', '.join(KINDS)}, a tokenizer.json or a Hub model"
        if near := did_you_mean(name, KINDS):
            raise UserError(f"{allowed}, got '{name}'{near}") from error
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
        raise DataError(f"{name} contains no text: {found.row().removeprefix('; ')}.")
    return dataclasses.replace(_local_source(name, found.splits, config), listing=found)


def _local_source(name: str, files: dict[str, list[str]], config: DataConfig) -> Source:
    """A source of files on this disk. Raises DataError unless they are all of one kind."""
    kinds = {kind_of(file) for group in files.values() for file in group}
    if len(kinds) > 1:
        raise DataError(
            f"{name} contains files of several kinds ({', '.join(sorted(kinds))});"
            " choose one with a glob such as 'folder/*.txt'."
        )
    if not kinds:
        raise DataError(f"{name} contains no files.")
    kind = kinds.pop()
    return Source(name, _identity(files), kind, files, {}, config)


def _hub_source(dataset: str, config: DataConfig) -> Source:
    from lm.data import hub

    found = hub.find(dataset, config)
    identity = f"{dataset}\0{found.name}\0{found.revision}"
    name = dataset.split("/")[-1]
    return Source(name, identity, found.kind, found.splits, found.options, config, revision=found.revision)


def _identity(files: dict[str, list[str]]) -> str:
    """A hash of the contents of all files and of the splits they belong to.

    It is cached by the names, sizes and times of the files, so that an unchanged text is not read again.
    Files changed within the last two seconds are hashed every time: their time may not show the next change.
    """
    listing, newest = hashlib.sha256(), 0
    for split, group in files.items():
        for file in group:
            path = file.rpartition("::")[2]
            stat = _or_data_error(os.stat, path)
            newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
            facts = (split, os.path.abspath(path), file, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            listing.update(repr(facts).encode())
    cached = known(listing.hexdigest()[:32])
    settled = time.time_ns() - newest > 2_000_000_000
    with contextlib.suppress(OSError):
        if settled:
            return cached.read_text(encoding="ascii")
    identity = _content_hash(files)
    with contextlib.suppress(OSError):
        if settled:
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_text(cached, identity)
    return identity


def _content_hash(files: dict[str, list[str]]) -> str:
    identity = hashlib.sha256()
    contents: dict[str, str] = {}
    for split, group in sorted(files.items()):
        for file in group:
            member, _, path = file.rpartition("::")
            if path not in contents:
                contents[path] = _or_data_error(_file_hash, path)
            identity.update(f"{split}\0{member}\0{contents[path]}\0".encode())
    return identity.hexdigest()


def _file_hash(path: str) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _or_data_error(function: Callable[[str], T], path: str) -> T:
    try:
        return function(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _copy_standard_input() -> Path:
    """Copy standard input to a file, because it has to be hashed before it is read."""
    if sys.stdin.isatty():
        print("Reading text from standard input; end it with Ctrl-D.", file=sys.stderr)
    copy = cache_folder() / f"stdin.{os.getpid()}{PARTIAL}"
    with writing_to_cache(copy):
        try:
            with open(copy, "wb") as opened:
                shutil.copyfileobj(sys.stdin.buffer, opened, 1 << 20)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
    return copy
