"""Models on the Hugging Face Hub: download one, create a repository, upload to it; errors are one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import utils as errors  # see lm/hub_errors.py

from lm.errors import ModelError, UserError, one_line
from lm.hub_errors import refusal

Token = str | bool | None  # a token, True for the stored one, False for none, None for the stored one if any
HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
_LOG_IN = "run `hf auth login` or pass `token`"


def download(
    repo_id: str,
    files: Sequence[str],
    revision: str | None = None,
    token: Token = None,
    local_files_only: bool = False,
) -> Path:
    """The folder with these files of a Hub model, downloaded unless they are cached. Raises ModelError."""
    try:
        folder = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[*files],
            tqdm_class=_no_bar(),
        )
    except errors.LocalEntryNotFoundError as error:
        name = repo_id if revision is None else f"{repo_id}@{revision}"
        raise ModelError(
            f"there is no folder '{repo_id}', the Hub model '{name}' is not on this disk, and"
            f" {_why_offline(local_files_only, error)}: load it once with a network."
        ) from error
    except Exception as error:
        missing = f"there is no folder and no Hub model '{repo_id}'; if it is private, {_LOG_IN}."
        refused = refusal(error, f"Hub model '{repo_id}'", missing, revision)
        failed = f"cannot download the Hub model '{repo_id}': {_reason(error)}."
        raise ModelError(refused or failed) from error
    return Path(folder)


def create_repository(
    repo_id: str, private: bool | None = None, token: Token = None
) -> huggingface_hub.RepoUrl:
    """The URL of a Hub model, which is created unless it exists. Its `repo_id` has the owner's name even if
    the argument lacks it. Raises UserError."""
    try:
        return huggingface_hub.HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True)
    except Exception as error:
        raise UserError(f"cannot create the Hub model '{repo_id}': {_reason(error)}.") from error


def upload(
    folder: str | Path,
    repo_id: str,
    token: Token = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> huggingface_hub.CommitInfo:
    """Upload the files of a folder to a Hub model, in one commit.

    They go to the branch `revision`, which is created unless it exists, by default to the main branch, or
    with `create_pr` to a new pull request for that one. Raises UserError.
    """
    api = huggingface_hub.HfApi(token=token)
    try:
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload model",
            revision=revision,
            create_pr=create_pr,
        )
    except errors.RevisionNotFoundError as error:
        raise UserError(f"the Hub model '{repo_id}' has no revision '{revision}'; name a branch.") from error
    except Exception as error:
        raise UserError(f"cannot upload to the Hub model '{repo_id}': {_reason(error)}.") from error


def _no_bar() -> type:
    """A class of progress bars that draw nothing: huggingface_hub's appear even if all files are cached."""
    from tqdm import tqdm  # only here: loading a model from a folder should not wait for it

    class NoBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)  # an extension of huggingface_hub
            super().__init__(*args, **{**kwargs, "disable": True})

    return NoBar


def _why_offline(local_files_only: bool, error: Exception) -> str:
    if local_files_only:
        return "local_files_only is set"
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"the Hub cannot be reached ({one_line(error.__cause__ or error, 80).rstrip('.')})"


def _reason(error: Exception) -> str:
    """What went wrong, and what to do if that is known."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"there is no token on this machine; {_LOG_IN}"
    if status == 401:
        return f"the Hub does not accept the token, or there is none; {_LOG_IN}"
    if status == 403:
        return f"the token does not allow it ({one_line(error, 80).rstrip('.')})"
    return one_line(error, 160).rstrip(".")
