"""Datasets of the Hugging Face Hub: which files they consist of, and fetching those.

`datasets` knows which files of a repository make which split; `huggingface_hub` downloads them,
retries, resumes and keeps them on this disk. What was found is remembered, so that a text that was
used before can be used again without a network, and without asking more than its commit otherwise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from lm.config import DataConfig
from lm.data.cache import known
from lm.errors import DataError, one_line
from lm.files import write_text

_SCHEME = "hf://datasets/"
_TRIES = 3  # beside those of the library, which does not try again after every kind of break
# Of a loader's settings, those that say where the files are and not how to read them.
_NOT_READING = {"name", "version", "data_dir", "data_files", "description", "features"}


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
    wanted = json.dumps([dataset, config.dataset_config, config.dataset_revision])
    memory = known(f"hub-{hashlib.sha256(wanted.encode()).hexdigest()[:32]}")
    found = HubFiles(**json.loads(memory.read_text(encoding="utf-8"))) if memory.is_file() else None
    revision = _revision(dataset, config.dataset_revision, found)
    if found is None or found.revision != revision:
        found = _ask(dataset, config, revision)
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_text(memory, json.dumps(dataclasses.asdict(found), indent=2))
    return found


def fetch(file: str, watch: Callable[[str, float | None], None]) -> str:
    """The path of a Hub file on this disk, downloaded if it is not there yet. Raises DataError."""
    organisation, rest, path = file.removeprefix(_SCHEME).split("/", 2)
    name, revision = rest.split("@", 1)
    what = f"Downloading {Path(path).name}"
    for left in reversed(range(_TRIES)):
        try:
            return huggingface_hub.hf_hub_download(
                f"{organisation}/{name}",
                path,
                repo_type="dataset",
                revision=revision,
                tqdm_class=_watched(what, watch),
            )
        except errors.LocalEntryNotFoundError as error:
            raise DataError(
                f"{path} of {organisation}/{name} is not on this disk, and the Hub cannot be reached."
            ) from error
        except (errors.HfHubHTTPError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, (errors.HfHubHTTPError, ConnectionError)):
                raise  # the disk, not the network
            broken = error
        except Exception as error:  # of the library's own HTTP client
            broken = error
        if left:
            time.sleep(1)
    raise DataError(
        f"{path} of {organisation}/{name} could not be downloaded: {one_line(broken, 100)}."
        " Run it again to try once more."
    ) from broken


def _revision(dataset: str, wanted: str | None, found: HubFiles | None) -> str:
    """The dataset's commit, asked for once and without retries, so that a wrong name or a missing
    network is told at once; without a network the one that is known."""
    try:
        return huggingface_hub.HfApi().dataset_info(dataset, revision=wanted, timeout=10).sha
    except errors.GatedRepoError as error:
        raise DataError(
            f"the dataset '{dataset}' wants its terms accepted: do that on its page, then `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"the dataset '{dataset}' has no revision '{wanted}'.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"there is no file, folder or Hub dataset '{dataset}' (a private one needs `hf auth login`)."
        ) from error
    except Exception as error:
        if found:
            return found.revision
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else one_line(error, 80)
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
        raise DataError(
            f"the dataset '{dataset}' cannot be loaded from the Hub: {_without_address(error)}"
        ) from error
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


def _without_address(error: Exception) -> str:
    """The message of an error of `datasets`, in one line that is a sentence."""
    text = one_line(error)
    return text if text.endswith((".", "]")) else f"{text}."


def _watched(what: str, watch: Callable[[str, float | None], None]) -> type:
    from tqdm import tqdm

    class Watched(tqdm):
        """Draws nothing and tells `watch` instead."""

        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)  # of the library's own bars
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            share = min(self.n / self.total, 1.0) if self.total else None
            watch(f"{what}, {self.n / 1e6:,.0f} MB", share)

    return Watched


class _Nowhere:
    def write(self, text: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""
