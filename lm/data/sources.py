"""Where text comes from: `find_source` turns `--dataset` into splits of documents.

Every text is read by the `datasets` library: own files by its text, JSON, CSV and Parquet loaders,
anything else as a Hub id. It is imported only when text is read, because a run whose token stream
is already on disk can start without it.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm.config import DataConfig
from lm.errors import DataError, one_line

_LOADERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_SPLIT_NAMES = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Source:
    """A text that was found but not read yet."""

    name: str  # short, for people and for the name of the run's folder
    identity: str  # another one if the text is another one
    splits: tuple[str, ...]
    files: dict[str, list[str]] | None  # by split; None: it comes from the Hub
    loader: str  # a loader of `datasets`, or the Hub id
    config: DataConfig

    def documents(self, split: str) -> Iterator[str]:
        """Yield the documents of a split, empty ones left out. Raises DataError."""
        if split not in self.splits:
            raise DataError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}.")
        try:
            yield from _documents(self, split)
        except DataError:
            raise
        except UnicodeDecodeError as error:
            raise _invalid_utf8(self, split) or DataError(one_line(error)) from error
        except Exception as error:  # the loaders raise whatever their format's library raises
            cause = error.__cause__ or error
            raise DataError(f"{self.name} could not be read as {self.loader}: {one_line(cause)}") from error


def find_source(config: DataConfig) -> Source:
    """Find the text that `config.dataset` names. Raises DataError if there is none."""
    if config.dataset == "python":
        return _own_files("python", {"train": python_library()}, config)
    if config.dataset == "-":
        return _own_files("stdin", {"train": [_spool_standard_input()]}, config)
    path = Path(config.dataset).expanduser()
    if path.is_file():
        return _own_files(path.stem, {"train": [str(path)]}, config)
    if path.is_dir():
        return _own_files(path.resolve().name, _files_by_split(path), config)
    if glob.has_magic(config.dataset):
        files = sorted(p for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        if not files:
            raise DataError(f"no file matches '{config.dataset}'.")
        name = re.sub(r"\W+", "-", Path(config.dataset).name).strip("-") or "files"
        return _own_files(name, {"train": files}, config)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.dataset) or path.suffix in _LOADERS | {".txt": 0}:
        raise DataError(f"there is no file or folder '{config.dataset}'.")
    return _from_hub(config)


def python_library() -> list[str]:
    """The files of the running Python's standard library, tests left out, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    files = (p for p in root.rglob("*.py") if left_out.isdisjoint(p.relative_to(root).parts))
    return sorted(map(str, files))


def _own_files(name: str, files: dict[str, list[str]], config: DataConfig) -> Source:
    loaders = {_LOADERS.get(Path(f).suffix.lower(), "text") for group in files.values() for f in group}
    if len(loaders) > 1:
        raise DataError(
            f"{config.dataset} holds files of several kinds ({', '.join(sorted(loaders))});"
            " choose one with a glob such as 'folder/*.txt'."
        )
    identity = hashlib.sha256()
    for split, group in sorted(files.items()):
        for file in group:
            identity.update(f"{split}\0{_digest(file)}\0".encode())
    return Source(name, identity.hexdigest(), tuple(files), files, loaders.pop(), config)


def _digest(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _files_by_split(folder: Path) -> dict[str, list[str]]:
    """Files of a folder and below it; names such as valid.txt or test-0.parquet make splits."""
    files: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            words = re.split(r"[^a-z]+", str(inside.with_suffix("")).lower())
            split = next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), "train")
            files.setdefault(split, []).append(str(path))
    if not files:
        raise DataError(f"the folder {folder} holds no files.")
    return files


def _spool_standard_input() -> str:
    """Copy standard input to a file, since it can be read only once, and text is read twice."""
    from lm.data.stream import cache_folder

    if sys.stdin.isatty():
        print("Reading text from standard input; end it with Ctrl-D.", file=sys.stderr)
    folder = cache_folder() / "stdin"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{os.getpid()}.partial"
    digest = hashlib.sha256()
    try:
        with open(partial, "wb") as copy:
            while block := sys.stdin.buffer.read(1 << 20):
                digest.update(block)
                copy.write(block)
        return str(partial.rename(folder / f"{digest.hexdigest()[:16]}.txt"))
    finally:
        partial.unlink(missing_ok=True)


def _from_hub(config: DataConfig) -> Source:
    revision = _hub_revision(config.dataset)
    import datasets

    try:
        builder = datasets.load_dataset_builder(config.dataset, config.dataset_config, revision=revision)
        splits = tuple(builder.info.splits or ()) or tuple(
            datasets.get_dataset_split_names(config.dataset, config.dataset_config, revision=revision)
        )
    except Exception as error:
        raise DataError(
            f"the dataset '{config.dataset}' cannot be loaded from the Hub: {one_line(error)}"
        ) from error
    return Source(
        name=config.dataset.split("/")[-1],
        identity=f"{config.dataset}\0{builder.config.name}\0{builder.hash}",
        splits=splits,
        files=None,
        loader=config.dataset,
        config=config,
    )


def _hub_revision(dataset: str) -> str | None:
    """The dataset's commit, asked for once and without retries, so that a wrong name or a missing
    network is told at once. None: use what an earlier download left on this disk."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return huggingface_hub.HfApi().dataset_info(dataset, timeout=10).sha
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"there is no file, folder or Hub dataset '{dataset}' (a private one needs `hf auth login`)."
        ) from error
    except Exception as error:
        constants.HF_HUB_OFFLINE = True
        import datasets

        datasets.config.HF_HUB_OFFLINE = True
        try:
            datasets.load_dataset_builder(dataset)
        except Exception:
            raise DataError(
                f"there is no file or folder '{dataset}', and the Hub cannot be reached to look for a"
                f" dataset of that name: {one_line(error, 80)}"
            ) from error
        return None


def _documents(source: Source, split: str) -> Iterator[str]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    config = source.config
    if source.files is None:
        rows = datasets.load_dataset(source.loader, config.dataset_config, split=split)
    else:
        options = {"data_files": {split: source.files[split]}, "split": split, "streaming": True}
        if source.loader == "text":
            options["sample_by"] = "document"
        if source.loader != "parquet":
            options["encoding_errors"] = config.encoding_errors
        if source.loader == "csv" and source.files[split][0].endswith(".tsv"):
            options["sep"] = "\t"
        # Streaming reads the files where they are, without a second copy of the text on disk.
        rows = datasets.load_dataset(source.loader, **options)
    column = None
    for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
        column = column or _text_column(batch, config.text_column, source.name)
        for text in batch[column]:
            if text is None or text == "":
                continue
            if not isinstance(text, str):
                raise DataError(
                    f"the column '{column}' of {source.name} holds {type(text).__name__}, not text;"
                    f" choose another with --text-column: {', '.join(batch)}."
                )
            yield text


def _text_column(batch: dict[str, list], wanted: str | None, name: str) -> str:
    columns = ", ".join(batch)
    if wanted is not None:
        if wanted not in batch:
            raise DataError(f"{name} has no column '{wanted}'; it has {columns}.")
        return wanted
    if "text" in batch:
        return "text"
    texts = [c for c, values in batch.items() if any(isinstance(v, str) for v in values)]
    if len(texts) != 1:
        raise DataError(f"which column of {name} is the text? Name one with --text-column: {columns}.")
    return texts[0]


def _invalid_utf8(source: Source, split: str) -> DataError | None:
    """The place of the first byte that is not UTF-8, which the loaders do not tell."""
    for file in (source.files or {}).get(split, ()):
        decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
        with open(file, "rb") as opened:
            while True:
                block = opened.read(1 << 20)
                kept = len(decoder.getstate()[0])
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    place = position - kept + error.start
                    value = error.object[error.start]
                    return DataError(
                        f"{file} is not UTF-8: byte 0x{value:02x} at position {place:,};"
                        " --encoding-errors replace reads it all the same."
                    )
                if not block:
                    break
                position += len(block)
    return None
