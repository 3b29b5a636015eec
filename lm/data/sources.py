"""Where text comes from: `find_source` turns one `--dataset` into splits of documents."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lm.config.schema import DataConfig
from lm.data import reading
from lm.data.cache import PARTIAL, cache_folder, known, making_room_for
from lm.data.progress import ProgressCallback
from lm.errors import DataError, one_line
from lm.files import write_text

_TABLES = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
if TYPE_CHECKING:
    import datasets

T = TypeVar("T")
_SPLIT_NAMES = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Source:
    """A text that was found but not read yet."""

    name: str  # short, for people and for the name of the run's folder
    identity: str  # another one if the text is another one
    kind: str  # 'text', or the loader of `datasets` that reads the files
    files: dict[str, list[str]]  # by split: paths, files in archives, addresses on the Hub
    options: dict[str, Any]  # of that loader
    config: DataConfig
    kept: Path | None = None  # a copy of standard input
    revision: str | None = None  # the commit, if it comes from the Hub

    def check(self, split: str) -> None:
        """Raise DataError if there is no such split."""
        if split not in self.files:
            raise DataError(f"{self.name} has no split '{split}'; it has {', '.join(self.files)}.")

    def fetched(self, split: str, progress: ProgressCallback) -> Source:
        """The same with the files of a split on this disk. Raises DataError."""
        self.check(split)
        files = self.files[split]
        if any(map(is_remote, files)):
            from lm.data.hub import fetch

            files = [fetch(file, progress) for file in files]
        files = [inside for file in files for inside in reading.inside(file)]
        return dataclasses.replace(self, files=self.files | {split: files})

    def size(self, split: str) -> int | None:
        """Bytes of the text, where the files are nothing but that."""
        if self.kind != "text" or any(reading.compression_of(f) or "::" in f for f in self.files[split]):
            return None
        return sum(os.path.getsize(file) for file in self.files[split] if os.path.exists(file))

    def read(self, split: str) -> Iterator[bytes]:
        """The documents of a split as UTF-8 with SEPARATOR between them. Raises DataError."""
        if self.kind == "text":
            yield from reading.read_text_files(self.files[split], self.config.encoding_errors)
            return
        with self.telling_trouble(split):
            yield from reading.read_table(self.rows(split), self.name, self.config.text_column)

    def rows(self, split: str) -> datasets.IterableDataset:
        """A split as a dataset of the `datasets` library, which reads the files where they are,
        without a second copy of the text on disk."""
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        # Minutes, not hours, until a connection that broke is given up.
        datasets.config.STREAMING_READ_MAX_RETRIES = 3
        files = {split: self.files[split]}
        options = self.options | ({"sample_by": "document"} if self.kind == "text" else {})
        return datasets.load_dataset(self.kind, data_files=files, split=split, streaming=True, **options)

    @contextlib.contextmanager
    def telling_trouble(self, split: str) -> Iterator[None]:
        """Turn whatever goes wrong with the loader into a DataError that says what it was."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # the loaders raise whatever their format's library raises
            raise self._trouble(split, error) from error

    def forget(self) -> None:
        """Delete the copy of standard input, which nobody can name again."""
        if self.kept:
            self.kept.unlink(missing_ok=True)

    def _trouble(self, split: str, error: Exception) -> DataError:
        """What a loader's error means."""
        gone = [file for file in self.files[split] if "::" not in file and not os.path.exists(file)]
        if gone and not any(map(is_remote, gone)):
            return DataError(f"{gone[0]} vanished before it was read.")
        cause = one_line(error.__cause__ or error).rstrip(".")
        if gone:  # files on the Hub that are streamed
            from lm.data.hub import is_of_network

            if is_of_network(error):
                return DataError(f"the Hub cannot be reached to read {self.name} any further: {cause}.")
        elif self.kind == "json" and (place := reading.bad_json_line(self.files[split])):
            return DataError(f"{place}.")
        elif self.kind == "parquet" and (file := reading.bad_parquet_file(self.files[split])):
            return DataError(f"{file} is damaged or cut short ({cause}): get it again.")
        return DataError(f"{self.name} could not be read as {self.kind}: {cause}.")


def find_source(dataset: str, config: DataConfig) -> Source:
    """Find the text that `dataset` names, one of `config.dataset`. Raises DataError if there is none."""
    if dataset == "python":
        return own_files("python", {"train": python_library()}, config)
    if dataset == "-":
        if config.streaming:
            raise DataError("standard input can be read only once: leave out --streaming.")
        copy = _keep_standard_input()
        return dataclasses.replace(own_files("stdin", {"train": [str(copy)]}, config), kept=copy)
    path = Path(dataset).expanduser()
    if path.suffix.lower() == ".zip" and path.is_file():
        return own_files(path.stem, _by_split("", reading.inside(str(path))), config)
    if path.is_file():
        name = Path(reading.without_compression(path.name)).stem
        return own_files(name, {"train": [str(path)]}, config)
    if path.is_dir():
        files = _by_split(f"{path}{os.sep}", _files_below(path))
        if not files:
            raise DataError(f"the folder {path} holds no files.")
        return own_files(path.resolve().name, files, config)
    if glob.has_magic(dataset):
        found = sorted(p for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        if not found:
            raise DataError(f"no file matches '{dataset}'.")
        fixed = re.match(r"[^*?\[]*(?=[/\\])", str(path))
        name = Path(fixed[0]).name if fixed else ""
        return own_files(name or "files", {"train": found}, config)
    looks_like_a_file = Path(reading.without_compression(dataset)).suffix in {*_TABLES, ".txt", ".zip"}
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset) or looks_like_a_file:
        raise DataError(f"there is no file or folder '{dataset}'.")
    return _from_hub(dataset, config)


def python_library() -> list[str]:
    """The files of the running Python's standard library, tests left out, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out]  # site-packages may be large
        files += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def own_files(name: str, files: dict[str, list[str]], config: DataConfig) -> Source:
    """A source of files on this disk, all of one kind. Raises DataError."""
    kinds = {_kind_of(file) for group in files.values() for file in group}
    if len(kinds) > 1:
        raise DataError(
            f"{name} holds files of several kinds ({', '.join(sorted(kinds))});"
            " choose one with a glob such as 'folder/*.txt'."
        )
    if not kinds:
        raise DataError(f"{name} holds no files.")
    kind = kinds.pop()
    options: dict[str, Any] = _strictness(kind, config)
    if kind == "csv" and any(".tsv" in file.lower() for group in files.values() for file in group):
        options["sep"] = "\t"
    return Source(name, _digest(files), kind, files, options, config)


def _from_hub(dataset: str, config: DataConfig) -> Source:
    from lm.data import hub

    found = hub.find(dataset, config)
    identity = f"{dataset}\0{found.name}\0{found.revision}"
    name = dataset.split("/")[-1]
    options = found.options | _strictness(found.kind, config)
    return Source(name, identity, found.kind, found.splits, options, config, revision=found.revision)


def _strictness(kind: str, config: DataConfig) -> dict[str, str]:
    """The option of a loader that says what to do with bytes that are not UTF-8."""
    return {"encoding_errors": config.encoding_errors} if kind in ("csv", "json") else {}


def is_remote(file: str) -> bool:
    """Whether `file` is the address of a file on the Hub."""
    return file.startswith("hf://")


def _kind_of(file: str) -> str:
    name = reading.without_compression(reading.name_of(file)).lower()
    return _TABLES.get(os.path.splitext(name)[1], "text")


def _digest(files: dict[str, list[str]]) -> str:
    """A hash of the contents of all files, and of the splits they are in.

    It is remembered by names, sizes and times, so that a large text need not be read again to see
    that it is the same. Files that were changed within the last two seconds are not trusted to
    show the next change in their time.
    """
    listing, newest = hashlib.sha256(), 0
    for split, group in files.items():
        for file in group:
            path = file.rpartition("::")[2]
            stat = _checked(path, os.stat)
            newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
            facts = (split, os.path.abspath(path), file, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            listing.update(repr(facts).encode())
    remembered = known(listing.hexdigest()[:32])
    settled = time.time_ns() - newest > 2_000_000_000
    with contextlib.suppress(OSError):
        if settled:
            return remembered.read_text(encoding="ascii")
    identity = _content_hash(files)
    with contextlib.suppress(OSError):
        if settled:
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write_text(remembered, identity)
    return identity


def _content_hash(files: dict[str, list[str]]) -> str:
    identity = hashlib.sha256()
    contents: dict[str, str] = {}
    for split, group in sorted(files.items()):
        for file in group:
            inside, _, path = file.rpartition("::")
            if path not in contents:
                contents[path] = _checked(path, _file_hash)
            identity.update(f"{split}\0{inside}\0{contents[path]}\0".encode())
    return identity.hexdigest()


def _file_hash(path: str) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(path: str, look: Callable[[str], T]) -> T:
    try:
        return look(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _files_below(folder: Path) -> list[str]:
    """All files in a folder and the folders in it, hidden ones left out, sorted."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(place, name) for name in names if not name.startswith("."))
        found += filter(os.path.isfile, paths)
    return sorted(found)


def _by_split(root: str, files: list[str]) -> dict[str, list[str]]:
    """Names such as valid.txt or test-0.parquet make splits; what comes before `root` is no name."""
    splits: dict[str, list[str]] = {}
    for file in files:
        inside = reading.without_compression(reading.name_of(file).removeprefix(root))
        words = re.split(r"[^a-z]+", os.path.splitext(inside)[0].lower())
        split = next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), "train")
        splits.setdefault(split, []).append(file)
    return splits


def _keep_standard_input() -> Path:
    """Copy standard input to a file: which text it is must be known before it is read."""
    if sys.stdin.isatty():
        print("Reading text from standard input; end it with Ctrl-D.", file=sys.stderr)
    copy = cache_folder() / f"stdin.{os.getpid()}{PARTIAL}"
    with making_room_for(copy):
        try:
            with open(copy, "wb") as opened:
                shutil.copyfileobj(sys.stdin.buffer, opened, 1 << 20)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
    return copy
