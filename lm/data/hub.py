"""Datasets and tokenizers on the Hugging Face Hub: which files they consist of, and downloading them.

`datasets` finds out which files of a repository belong to which split; `huggingface_hub` downloads, retries,
resumes and caches them. What was found is cached too: a text that was used before needs no network, and
with a network only its commit is looked up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import re
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors
from tqdm import tqdm

from lm.config.schema import DataConfig
from lm.console.progress import ProgressCallback
from lm.data.cache import known
from lm.data.compression import without_compression
from lm.data.datasets_library import datasets_library
from lm.data.listing import TABLES, TABLES_ABOUT
from lm.data.split_names import by_split_on_hub
from lm.errors import DataError, UserError, one_line
from lm.files.atomic import write_text
from lm.hub_errors import is_network_error, refusal

_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_TRIES = 3  # on top of those of the library, which does not retry after every kind of broken connection
_READABLE = {*TABLES, ".txt"}
# The settings of a loader that say where the files are rather than how to read them.
_LOCATION = {"name", "version", "data_dir", "data_files", "description", "features"}

# Whether the Hub answered the last request. If not, only cached files are used: the library would try for
# half a minute to download each file that is missing.
_reachable = True
# An interrupted download resumes at the last whole chunk; the library's default is 10 MiB.
constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
# Every failed try would print a warning in the middle of the progress bar.
huggingface_hub.logging.set_verbosity(huggingface_hub.logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class DataFiles:
    """The files of one configuration of a dataset, on the Hub at one commit or in a folder."""

    revision: str  # the commit; empty for a folder
    name: str  # of the configuration
    kind: str  # the loader of `datasets` that reads the files
    splits: dict[str, list[str]]  # hf:// addresses
    options: dict[str, Any]  # of the loader
    about: dict[str, Any] = dataclasses.field(default_factory=dict)  # id; language and license of its card


def find(dataset: str, config: DataConfig) -> DataFiles:
    """The files of a Hub dataset.

    Raises DataError if it does not exist or the Hub cannot be reached, UserError if `datasets` is needed
    but not installed.
    """
    found = _cached(dataset, config, config.dataset_revision)
    about, revision = _look_up(dataset, config, found)
    if found is None or found.revision != revision or found.about != about:
        found = _cached(dataset, config, revision) or _list_files(about["id"], config, revision)
        found = dataclasses.replace(found, about=about)
        for key in (config.dataset_revision, revision):
            file = _cache_file(dataset, config, key)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(dataclasses.asdict(found), indent=2))
    return found


def fetch(file: str, progress: ProgressCallback) -> str:
    """The local path of a Hub dataset's file, downloaded unless it is cached. Raises DataError."""
    address = _ADDRESS.fullmatch(file)
    if address is None:
        raise DataError(f"'{file}' is not the address of a file in a Hub dataset.")
    repo, revision, path = address["repo"], address["revision"], address["path"]
    bar = _progress_bar(f"Downloading {Path(path).name}", progress)
    return _download(repo, path, repo_type="dataset", revision=revision, tqdm_class=bar)


def download_size(dataset: str, config: DataConfig) -> int:
    """The bytes of a Hub dataset's files that are not on this disk. Raises as `find` does."""
    found = find(dataset, config)
    addresses = {file for files in found.splits.values() for file in files}
    paths = [address["path"] for file in addresses if (address := _ADDRESS.fullmatch(file))]
    missing = [path for path in paths if not _is_cached(found.about["id"], path, found.revision)]
    if not missing or not _reachable:
        return 0
    try:
        infos = huggingface_hub.HfApi().get_paths_info(
            found.about["id"], missing, revision=found.revision, repo_type="dataset"
        )
    except Exception as error:
        raise DataError(f"the Hub does not say how large '{dataset}' is: {one_line(error, 80)}.") from error
    return sum(info.size for info in infos if isinstance(info, huggingface_hub.hf_api.RepoFile))


def _is_cached(repo: str, path: str, revision: str) -> bool:
    found = huggingface_hub.try_to_load_from_cache(repo, path, revision=revision, repo_type="dataset")
    return isinstance(found, str)


def fetch_tokenizer(model: str) -> str:
    """The local path of a Hub model's tokenizer.json, downloaded if there is a newer one.

    Raises UserError if there is none or the Hub cannot be reached.
    """
    global _reachable
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(model, "tokenizer.json"), timeout=10)
        _reachable = True
    except errors.EntryNotFoundError as error:
        raise UserError(f"the Hub model '{model}' has no tokenizer.json; choose another model.") from error
    except Exception as error:
        if refused := _refusal(error, f"Hub model '{model}'"):
            raise UserError(refused) from error
        _reachable = False  # use the cached file
    return _download(model, "tokenizer.json")


def _download(repo: str, path: str, **options: Any) -> str:
    for tries_left in reversed(range(_TRIES)):
        try:
            return huggingface_hub.hf_hub_download(repo, path, local_files_only=not _reachable, **options)
        except errors.LocalEntryNotFoundError as error:
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
            raise DataError(
                f"{path} of {repo} is not on this disk, and {why}: run this once with a network."
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and not is_network_error(error) and "Consistency" not in str(error):
                raise  # the disk, not the network
            kind = "dataset" if options.get("repo_type") == "dataset" else "model"
            if refused := _refusal(error, f"Hub {kind} '{repo}'", options.get("revision")):
                raise DataError(refused) from error
            last_error = error
        if tries_left:
            time.sleep(1)
    raise DataError(
        f"{path} of {repo} cannot be downloaded: {one_line(last_error, 100)}. Run this again to retry."
    ) from last_error


def _cache_file(dataset: str, config: DataConfig, revision: str | None) -> Path:
    key = json.dumps([dataset, config.dataset_config, revision])
    return known(f"hub-{hashlib.sha256(key.encode()).hexdigest()[:32]}")


def _cached(dataset: str, config: DataConfig, revision: str | None) -> DataFiles | None:
    """What was found before."""
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing, or written by another version
        return DataFiles(**json.loads(_cache_file(dataset, config, revision).read_text(encoding="utf-8")))
    return None


def _look_up(dataset: str, config: DataConfig, found: DataFiles | None) -> tuple[dict[str, Any], str]:
    """The facts about a dataset (see `_about`), and its commit; without a network, those of `found`.

    Looked up once and without retries, so that a wrong name or a missing network is reported immediately.
    """
    global _reachable
    _reachable = True
    revision = config.dataset_revision
    try:
        info = huggingface_hub.HfApi().dataset_info(dataset, revision=revision, timeout=10)
        return _about(info), str(info.sha)
    except Exception as error:
        if refused := _refusal(error, f"Hub dataset '{dataset}'", revision):
            raise DataError(refused) from error
        _reachable = False
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else one_line(error, 80)
        if found and not config.streaming:
            return found.about, found.revision
        if found:
            raise DataError(f"'{dataset}' cannot be streamed: the Hub cannot be reached: {why}.") from error
        raise DataError(
            f"there is no file or folder '{dataset}', and the Hub cannot be reached to look for a"
            f" dataset of that name: {why}."
        ) from error


def _refusal(error: Exception, repository: str, revision: str | None = None) -> str | None:
    """Why the Hub does not let the user read a repository; None for errors of another kind."""
    missing = f"there is no file, folder or {repository} (a private one needs `hf auth login`)."
    # A name that no repository can have is that of a missing file.
    invalid = isinstance(error, errors.HFValidationError)
    return missing if invalid else refusal(error, repository, missing, revision)


def _about(info: huggingface_hub.DatasetInfo) -> dict[str, Any]:
    """The full name of a dataset, and what its card says about language and license."""
    about: dict[str, Any] = {"id": info.id}
    card = info.card_data
    language, license = (card.get("language"), card.get("license")) if card else (None, None)
    if languages := _strings(language):
        about["language"] = languages
    if licenses := _strings(license):
        about["license"] = ", ".join(licenses)
    return about


def _strings(value: Any) -> list[str]:
    """The strings in a value of a card's metadata, which may be one or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _list_files(dataset: str, config: DataConfig, revision: str) -> DataFiles:
    datasets = datasets_library("reading a Hub dataset")
    try:
        builder = datasets.load_dataset_builder(dataset, config.dataset_config, revision=revision)
        if files := _misread(datasets, dataset, revision, _splits(builder)):
            builder = datasets.load_dataset_builder(
                dataset, config.dataset_config, revision=revision, data_files=files
            )
    except Exception as error:
        described = problem(datasets, dataset, config.dataset_config, error, revision)
        raise DataError(f"the dataset '{dataset}' {described}") from error
    return files_of(builder, revision)


def files_of(builder: Any, revision: str = "") -> DataFiles:
    """The files that a builder of the `datasets` library reads, and how."""
    defaults = type(builder.config)()
    options = {
        field.name: value
        for field in dataclasses.fields(builder.config)
        if field.name not in _LOCATION
        and (value := getattr(builder.config, field.name)) != getattr(defaults, field.name)
        and (value is None or isinstance(value, (str, int, float, bool, list)))
    }
    # A packaged loader is defined in datasets.packaged_modules.<kind>.
    kind = type(builder).__module__.split(".")[2]
    return DataFiles(revision, builder.config.name, kind, _splits(builder), options)


def _splits(builder: Any) -> dict[str, list[str]]:
    return {str(name): list(map(str, files)) for name, files in builder.config.data_files.items()}


def _misread(
    datasets: ModuleType, dataset: str, revision: str, splits: dict[str, list[str]]
) -> dict[str, list[str]]:
    """The files of each split, as `data_files`, if `datasets` has misread their names; otherwise, nothing.

    It takes the-test-of-time.txt for a test split and then leaves out all files without such a word.
    """
    addresses = (_ADDRESS.fullmatch(file) for files in splits.values() for file in files)
    _, misleading = by_split_on_hub(address["path"] for address in addresses if address)
    if not misleading:
        return {}
    module = datasets.load.dataset_module_factory(dataset, revision=revision)
    if declares_files(module):
        return {}
    names = huggingface_hub.HfApi().list_repo_files(dataset, repo_type="dataset", revision=revision)
    found, _ = by_split_on_hub(filter(_is_data, names))
    return {split: list(map(glob.escape, files)) for split, files in found.items()}


def declares_files(module: Any) -> bool:
    """Whether the README of a dataset says which files belong to which split."""
    declared = module.builder_configs_parameters.metadata_configs or {}
    return any("data_files" in one or "data_dir" in one for one in declared.values())


def _is_data(name: str) -> bool:
    """Whether a file of a repository is text or a table, rather than hidden or about the others."""
    path = Path(without_compression(name))
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.lower() in _READABLE and path.name not in TABLES_ABOUT and not hidden


def problem(
    datasets: ModuleType, dataset: str, name: str | None, error: Exception, revision: str | None = None
) -> str:
    """What an error of the `datasets` library means, as the rest of a sentence, given the configuration."""
    no_files = (datasets.data_files.EmptyDatasetError, datasets.exceptions.DataFilesNotFoundError)
    if isinstance(error, no_files):
        return "has no files of a supported kind: Parquet, JSON, CSV or text."
    with contextlib.suppress(Exception):
        names = datasets.get_dataset_config_names(dataset, revision=revision)
        if name not in (names if len(names) > 1 else [None, *names]):
            what = f"no configuration '{name}'" if name else "several configurations"
            return f"has {what}; choose one with --dataset-config: {', '.join(names)}."
    cause = one_line(error).rstrip(".")
    return f"cannot be loaded from the Hub: {cause}." if revision else f"cannot be loaded: {cause}."


def _progress_bar(task: str, progress: ProgressCallback) -> type:
    """A class of tqdm bars that draw nothing and call `progress` instead."""

    class SilentBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)  # an extension of huggingface_hub
            super().__init__(*args, **{**kwargs, "disable": False, "file": _NullFile()})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            fraction = min(self.n / self.total, 1.0) if self.total else None
            progress(f"{task}, {self.n / 1e6:,.0f} MB", fraction)

    return SilentBar


class _NullFile:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass
