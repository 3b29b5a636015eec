"""Source: a text that has been found, and how it is read, from text files or from tables."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config.schema import DataConfig
from lm.config.settings import flag_of
from lm.console.progress import ProgressCallback
from lm.data import archives, columns, reading, tables, values
from lm.data.compression import compression_of
from lm.data.datasets_library import datasets_library
from lm.data.decoding import Decoded
from lm.data.fingerprint import identity_of
from lm.data.listing import Listing
from lm.errors import DataError, UserError, one_line
from lm.hub_errors import is_network_error
from lm.tokenization.documents import SEPARATOR

# Only --streaming and a few formats need `datasets`, which takes seconds to import.
if TYPE_CHECKING:
    import datasets

_BATCH = 256  # rows
# The options of the loaders of CSV and JSON in `datasets` that lm follows.
OPTIONS = {"field", "encoding", "delimiter", "sep", "names", "column_names"}


@dataclass(frozen=True)
class Source:
    """A text that has been found but not read yet."""

    name: str  # short, for messages and the name of the run folder
    kind: str  # "text", one of tables.KINDS, or the loader of `datasets` that reads the files
    files: dict[str, list[str]]  # split -> paths, members of archives, or addresses on the Hub
    options: dict[str, Any]  # of that loader, as a Hub dataset sets them
    config: DataConfig
    copy: Path | None = None  # of standard input
    copies: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # deletes it
    configured: bool = False  # whether its files are those of a configuration, see --dataset-config
    # For a Hub dataset: {its name in the settings: its id, revision (the commit), config, and the language
    # and license on its card}.
    hub: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    listing: Listing | None = None  # of a folder, a glob or an archive
    warnings: tuple[str, ...] = ()
    decoded: Decoded = dataclasses.field(default_factory=Decoded)  # what reading did to the characters
    # How each split of a table was read, for the report.
    notes: dict[str, columns.Notes] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def file_name(self) -> str:
        """The name of the file with its suffix if it is a single one of the user, else of the source."""
        files = [file for group in self.files.values() for file in group]
        return self.name if len(files) != 1 or self.copy or self.hub else archives.name_of(files[0])

    def check(self, split: str) -> None:
        """Raise DataError if there is no such split."""
        if split not in self.files:
            raise DataError(f"{self.name} has no split '{split}'; it has {', '.join(self.files)}.")

    @property
    def revision(self) -> str | None:
        """The commit, if it comes from the Hub."""
        return next((facts["revision"] for facts in self.hub.values()), None)

    @functools.cached_property
    def identity(self) -> str:
        """A string that changes with the text. For files on this disk, it is a hash of their contents."""
        if self.hub:
            ((dataset, facts),) = self.hub.items()
            return f"{dataset}\0{facts['config']}\0{facts['revision']}"
        return identity_of(self.files) + (repr(sorted(self.options.items())) if self.options else "")

    def check_unchanged(self) -> None:
        """Raise DataError if the files have changed since `identity` was computed."""
        copy = dataclasses.replace(self)  # which computes it again
        if not self.hub and copy.identity != self.identity:
            raise DataError(f"{self.name} changed while it was read: run the command again.")

    def takes(self, setting: str) -> bool:
        """Whether a setting is for sources like this one."""
        return setting not in _MEANT_FOR or _MEANT_FOR[setting][0](self)

    def fetched(self, split: str, progress: ProgressCallback) -> Source:
        """The same source with the files of a split downloaded. Raises DataError."""
        self.check(split)
        files = self.files[split]
        if any(map(archives.is_remote, files)):
            from lm.data.hub import fetch

            files = [fetch(file, progress) for file in files]
        files = list(_members(files))
        return dataclasses.replace(self, files=self.files | {split: files})

    def size(self, split: str) -> int | None:
        """The size of the text in bytes, or None if it is a table or compressed."""
        if self.kind != "text" or any(
            compression_of(file) or archives.member_and_path(file)[0] for file in self.files[split]
        ):
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

    def texts(self, split: str, kept: columns.Rows | None = None) -> Iterator[str]:
        """The text of each row of a split, empty where there is none; of text files, each document.

        The rows with text are added to `kept`. Raises DataError.
        """
        self.check(split)
        notes = self.notes[split] = columns.Notes()
        with self._explaining_errors(self.files[split]):
            if self.kind == "text":
                yield from self._documents(self.files[split])
                return
            before = dataclasses.replace(self.decoded)

            def read(wanted: set[str] | None) -> Iterator[values.Row]:
                vars(self.decoded).update(vars(before))  # rows that are read again count once
                return self._rows(self.files[split], notes, wanted)

            column, errors = self.config.text_column, self.config.encoding_errors
            yield from columns.texts(read, self.name, column, errors, notes, self.kind in tables.PRUNED, kept)

    def rows(self, split: str) -> Iterator[tuple[str, int, values.Row]]:
        """Each row of a split of a table, with its file and its number there, from 1. Raises DataError."""
        self.check(split)
        notes = self.notes[split] = columns.Notes()
        with self._explaining_errors(self.files[split]):
            for file in _members(self.files[split]):
                for number, row in enumerate(self._rows([file], notes), start=1):
                    yield file, number, row

    def probe(self, split: str) -> None:
        """Raise DataError if the table has no such column or list of rows as the settings name."""
        read = self._trial(split)
        with self._explaining_errors(self.files[split]):
            if column := self.config.text_column:
                columns.choose(read, self.name, column, columns.Notes(), self.kind in tables.PRUNED)
            else:
                next(read(None), None)

    def columns_offered(self, split: str) -> dict[str, str]:
        """The columns of a table, those with text first, each with one of its values; of text files, none.

        Raises DataError.
        """
        self.check(split)
        with self._explaining_errors(self.files[split]):
            return {} if self.kind == "text" else columns.offered(self._trial(split)(None))

    def column_chosen(self, split: str) -> str:
        """The column of a table that is its text if none is named. Raises DataError."""
        self.check(split)
        with self._explaining_errors(self.files[split]):
            return columns.choose(self._trial(split), self.name, None, columns.Notes())[0]

    def _trial(self, split: str) -> Callable[[set[str] | None], Iterator[values.Row]]:
        """A function that reads the rows without counting anything."""
        trial = dataclasses.replace(self, decoded=Decoded())
        return functools.partial(trial._rows, self.files[split], columns.Notes())

    def text_rows(self, split: str) -> datasets.IterableDataset:
        """A split as a dataset of the `datasets` library, streamed, with a single column, "text".

        Raises DataError if there is no text, UserError if the library is not installed.
        """
        library = datasets_library("--streaming")
        files, column = self.files[split], None
        if self.kind != "text":
            read, wanted = self._trial(split), self.config.text_column
            with self._explaining_errors(files):
                column, rows = columns.choose(read, self.name, wanted, columns.Notes())
                columns.text_at(next(rows, {}), column, self.name, columns.Notes())
        features = library.Features({"text": library.Value("string")})
        return library.IterableDataset.from_generator(
            self._stream, features, gen_kwargs={"files": files, "column": column}, split=split
        )

    def _stream(self, files: list[str], column: str | None) -> Iterator[dict[str, str]]:
        """The rows of `text_rows` in some of its files. Raises DataError."""
        with self._explaining_errors(files):
            yield from ({"text": text} for text in self._stream_texts(files, column))

    def _stream_texts(self, files: list[str], column: str | None) -> Iterator[str]:
        if column is None:
            yield from self._documents(files)
            return
        notes = columns.Notes()
        wanted = {column, *values.parents(column)}
        for number, row in enumerate(self._rows(files, notes, wanted), start=1):
            text = columns.text_at(row, column, self.name, notes)
            where = f"row {number:,} of {self.name}"
            yield values.without_surrogates(text, where, self.config.encoding_errors) if text.strip() else ""

    def _documents(self, files: list[str]) -> Iterator[str]:
        """The documents in some of the text files."""
        for file in _members(files):
            whole = b"".join(self._text([file]))
            yield from (document.decode() for document in whole.split(SEPARATOR) if document)

    def _text(self, files: list[str]) -> Iterator[bytes]:
        """The documents in some of the text files, in pieces."""
        config = self.config
        encoding = config.encoding or self.options.get("encoding")
        separator, name = config.document_separator, "standard input" if self.copy else None
        return reading.read_text_files(files, encoding, config.encoding_errors, separator, self.decoded, name)

    def _rows(
        self, files: list[str], notes: columns.Notes, wanted: set[str] | None = None
    ) -> Iterator[values.Row]:
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

    def _loaded_rows(self, file: str) -> Iterator[values.Row]:
        """The rows of a file in a format that only the `datasets` library reads."""
        library = datasets_library(f"reading {self.name}")
        rows = library.load_dataset(
            self.kind, data_files={"train": [file]}, split="train", streaming=True, **self.options
        )
        for table in rows.with_format("arrow").iter(batch_size=_BATCH):
            yield from table.to_pylist()

    def table_facts(self) -> list[dict[str, Any]]:
        """How each of the splits read so far was read, for the report; empty for text files."""
        return [
            {
                "dataset": self.name,
                "training": split == self.config.train_split,
                "sample": self.config.streaming,
                **notes.facts(self.name),
            }
            for split, notes in self.notes.items()
            if self.kind != "text"
        ]

    @contextlib.contextmanager
    def _explaining_errors(self, files: list[str]) -> Iterator[None]:
        """Turn any error of a loader into a DataError that says what is wrong with these files."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the loaders raise whatever their format's library raises
            raise self._explain(files, error) from error

    def forget(self) -> None:
        """Delete the copy of standard input, and close archives: they are no longer needed."""
        archives.close_archives()
        self.copies.close()

    def _explain(self, files: list[str], error: Exception) -> DataError:
        paths = (archives.member_and_path(file)[1] for file in files)
        missing = [path for path in paths if not os.path.exists(path)]
        if missing and not any(map(archives.is_remote, missing)):
            return DataError(f"{missing[0]} was deleted before it could be read.")
        cause = one_line(error.__cause__ or error).rstrip(".")
        if missing and is_network_error(error):  # files that are streamed from the Hub
            return DataError(f"the Hub cannot be reached to continue reading {self.name}: {cause}.")
        return DataError(f"{self.name} cannot be read as {self.kind}: {cause}.")


def _has_characters(source: Source) -> bool:
    return source.kind in ("text", "csv", "json")


# Which sources each setting applies to, and what errors call them.
_MEANT_FOR: dict[str, tuple[Callable[[Source], bool], str]] = {
    "dataset_config": (
        lambda source: source.configured,
        "Hub datasets and folders whose README.md has configurations",
    ),
    "dataset_revision": (lambda source: bool(source.hub), "Hub datasets"),
    "text_column": (lambda source: source.kind != "text", "tables"),
    "json_field": (lambda source: source.kind == "json", "JSON"),
    "header": (lambda source: source.kind == "csv", "CSV and TSV"),
    "encoding": (_has_characters, "text, CSV and JSON"),
    "encoding_errors": (_has_characters, "text, CSV and JSON"),
    "document_separator": (lambda source: source.kind == "text", "text files"),
}


def check_settings(sources: list[Source], config: DataConfig) -> None:
    """Raise UserError if a setting is given that applies to none of the sources."""
    for name, (_, meant_for) in _MEANT_FOR.items():
        given = getattr(config, name) != getattr(DataConfig(), name)
        if given and sources and not any(source.takes(name) for source in sources):
            flag = "--no-header" if name == "header" else flag_of(name)
            raise UserError(f"{flag} applies only to {meant_for}: leave it out for {sources[0].file_name}.")


def _members(files: list[str]) -> Iterator[str]:
    """The files, and in place of archives the files in them."""
    return (member for file in files for member in archives.members(file))


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
