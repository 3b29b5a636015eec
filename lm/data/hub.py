"""Datasets of the Hugging Face Hub: which files they consist of, and fetching those; tokenizers too.

`datasets` knows which files of a repository make which split; `huggingface_hub` downloads them,
retries, resumes and keeps them on this disk. What was found is remembered, so that a text that was
used before can be used again without a network, and without asking more than its commit otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from lm.config.schema import DataConfig
from lm.data.cache import known
from lm.data.progress import ProgressCallback
from lm.errors import DataError, UserError, one_line
from lm.files import write_text

_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_TRIES = 3  # beside those of the library, which does not try again after every kind of break
_GATED = "wants its terms accepted: do that on its page, then `hf auth login`."
# Of a loader's settings, those that say where the files are and not how to read them.
_NOT_READING = {"name", "version", "data_dir", "data_files", "description", "features"}

# Whether the Hub answered when it was asked last. If not, nothing more is asked of it: the library
# would try for half a minute to load each file that is not on this disk.
_answered = True
# What breaks off in a download is loaded again from the last whole piece; theirs are of 10 MiB.
constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
# Each try that failed would be a warning in the middle of the progress.
huggingface_hub.logging.set_verbosity(huggingface_hub.logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class HubFiles:
    """What one configuration of a Hub dataset at one commit consists of."""

    revision: str  # the commit
    name: str  # of the configuration
    kind: str  # the loader of `datasets` that reads the files
    splits: dict[str, list[str]]  # hf:// addresses
    options: dict[str, Any]  # of the loader


def find(dataset: str, config: DataConfig) -> HubFiles:
    """The files of a Hub dataset. Raises DataError if there is none, or no way to reach it."""
    found = _known(dataset, config, config.dataset_revision)
    name, revision = _revision(dataset, config, found)
    if found is None or found.revision != revision:
        found = _known(dataset, config, revision) or _ask(name, config, revision)
        for wanted in (config.dataset_revision, revision):
            memory = _memory(dataset, config, wanted)
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_text(memory, json.dumps(dataclasses.asdict(found), indent=2))
    return found


def fetch(file: str, progress: ProgressCallback) -> str:
    """The path of a Hub dataset's file on this disk, downloaded if it is not there. Raises DataError."""
    where = _ADDRESS.fullmatch(file).groupdict()
    bar = _watched(f"Downloading {Path(where['path']).name}", progress)
    return _download(
        where["repo"], where["path"], repo_type="dataset", revision=where["revision"], tqdm_class=bar
    )


def tokenizer_file(model: str) -> str:
    """The path of a Hub model's tokenizer.json on this disk, downloaded if there is a newer one.

    Raises UserError if there is none, or no way to reach it.
    """
    global _answered
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(model, "tokenizer.json"), timeout=10)
        _answered = True
    except errors.EntryNotFoundError as error:
        raise UserError(f"the Hub model '{model}' has no tokenizer.json; name another.") from error
    except errors.GatedRepoError as error:
        raise UserError(f"the Hub model '{model}' {_GATED}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"there is no file, folder or Hub model '{model}' (a private one needs `hf auth login`)."
        ) from error
    except Exception:  # without a network, the one that is here is good enough
        _answered = False
    return _download(model, "tokenizer.json")


def is_of_network(error: BaseException) -> bool:
    """Whether an error is the network's, so that it may be gone a minute later."""
    # Whichever client the libraries use, their common error descends from its own.
    client = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return isinstance(error, (ConnectionError, TimeoutError, *client))


def _download(repo: str, path: str, **options: Any) -> str:
    for left in reversed(range(_TRIES)):
        try:
            return huggingface_hub.hf_hub_download(repo, path, local_files_only=not _answered, **options)
        except errors.LocalEntryNotFoundError as error:
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
            raise DataError(
                f"{path} of {repo} is not on this disk, and {why}: run it once with a network."
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and not is_of_network(error) and "Consistency" not in str(error):
                raise  # the disk, not the network
            broken = error
        if left:
            time.sleep(1)
    raise DataError(
        f"{path} of {repo} could not be downloaded: {one_line(broken, 100)}. Run it again to try once more."
    ) from broken


def _memory(dataset: str, config: DataConfig, revision: str | None) -> Path:
    wanted = json.dumps([dataset, config.dataset_config, revision])
    return known(f"hub-{hashlib.sha256(wanted.encode()).hexdigest()[:32]}")


def _known(dataset: str, config: DataConfig, revision: str | None) -> HubFiles | None:
    """What was found before."""
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing, or of another version
        return HubFiles(**json.loads(_memory(dataset, config, revision).read_text(encoding="utf-8")))
    return None


def _revision(dataset: str, config: DataConfig, found: HubFiles | None) -> tuple[str, str]:
    """The dataset's full name and commit, asked for once and without retries, so that a wrong name or
    a missing network is told at once; without a network the commit that is known."""
    global _answered
    _answered = True
    wanted = config.dataset_revision
    try:
        about = huggingface_hub.HfApi().dataset_info(dataset, revision=wanted, timeout=10)
        return about.id, about.sha
    except errors.GatedRepoError as error:
        raise DataError(f"the dataset '{dataset}' {_GATED}") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"the dataset '{dataset}' has no revision '{wanted}'; its page lists its branches and commits."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"there is no file, folder or Hub dataset '{dataset}' (a private one needs `hf auth login`)."
        ) from error
    except Exception as error:
        _answered = False
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else one_line(error, 80)
        if found and not config.streaming:
            return dataset, found.revision
        if found:
            raise DataError(
                f"'{dataset}' cannot be streamed, because the Hub cannot be reached: {why}."
            ) from error
        raise DataError(
            f"there is no file or folder '{dataset}', and the Hub cannot be reached to look for a"
            f" dataset of that name: {why}."
        ) from error


def _ask(dataset: str, config: DataConfig, revision: str) -> HubFiles:
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        builder = datasets.load_dataset_builder(dataset, config.dataset_config, revision=revision)
    except Exception as error:
        raise DataError(f"the dataset '{dataset}' {_refusal(dataset, config, revision, error)}") from error
    defaults = type(builder.config)()
    options = {
        field.name: value
        for field in dataclasses.fields(builder.config)
        if field.name not in _NOT_READING
        and (value := getattr(builder.config, field.name)) != getattr(defaults, field.name)
        and isinstance(value, (str, int, float, bool, list))
    }
    splits = {str(name): list(map(str, files)) for name, files in builder.config.data_files.items()}
    # A packaged loader lives in datasets.packaged_modules.<kind>.
    kind = type(builder).__module__.split(".")[2]
    return HubFiles(revision, builder.config.name, kind, splits, options)


def _refusal(dataset: str, config: DataConfig, revision: str, error: Exception) -> str:
    """What an error of `datasets` means, as the rest of a sentence."""
    import datasets
    from datasets.data_files import EmptyDatasetError

    if isinstance(error, (EmptyDatasetError, datasets.exceptions.DataFilesNotFoundError)):
        return "holds no files of a kind that can be read: Parquet, JSON, CSV or text."
    with contextlib.suppress(Exception):
        names = datasets.get_dataset_config_names(dataset, revision=revision)
        if config.dataset_config not in (names if len(names) > 1 else [None, *names]):
            wanted = f"no configuration '{config.dataset_config}'"
            what = wanted if config.dataset_config else "several configurations"
            return f"has {what}; choose one with --dataset-config: {', '.join(names)}."
    return f"cannot be loaded from the Hub: {one_line(error).rstrip('.')}."


def _watched(what: str, progress: ProgressCallback) -> type:
    from tqdm import tqdm

    class Watched(tqdm):
        """Draws nothing and tells `progress` instead."""

        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)  # of the library's own bars
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            share = min(self.n / self.total, 1.0) if self.total else None
            progress(f"{what}, {self.n / 1e6:,.0f} MB", share)

    return Watched


class _Nowhere:
    def write(self, text: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""
