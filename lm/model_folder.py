"""The folder of a model: its files, and how to find it by its path, its Hub id or as the newest run.

config.json             format_version, the model's settings, its training data, its validation results, the
                        SHA-256 of the weights
model.safetensors       the weights
tokenizer.json          the Hugging Face tokenizers format
tokenizer_config.json   what transformers' AutoTokenizer needs to know in addition; lm does not read it
README.md               model card
"""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub

from lm.config.schema import RUNS
from lm.errors import ModelError, one_line
from lm.model_files import is_readable

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "README.md")
PRETRAINED = Path(__file__).parent / "pretrained"  # the model that ships with the package


def find_model(model: str | Path) -> Path:
    """The folder of a model: the folder of that name if it exists, else that of "pretrained" or of a Hub id.

    Downloads a model of the Hub. Raises ModelError if there is none.
    """
    name, path = str(model), Path(model).expanduser()
    if name and path.is_dir():  # the path of "" is the current folder
        return path
    if name and path.exists():
        raise ModelError(f"{model} is a file; name the folder that contains the model.")
    if name == PRETRAINED.name:
        return PRETRAINED
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise ModelError(f"there is no model folder '{model}'.")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*FILES]))
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise ModelError(f"there is no folder and no Hub model '{model}'.") from error
    except Exception as error:
        raise ModelError(
            f"there is no folder '{model}', and the Hub cannot be searched for it: {one_line(error, 80)}"
        ) from error


def is_model(folder: Path) -> bool:
    """Whether a folder contains a saved model."""
    return all(is_readable(folder / name, folder) for name in ("config.json", WEIGHTS))


def models_in(folder: Path) -> list[Path]:
    """The models directly in `folder`, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and is_model(path)]
    return sorted(found, key=lambda path: (path / WEIGHTS).stat().st_mtime, reverse=True)


def default_model() -> Path:
    """The newest run in runs/, else the pretrained model."""
    return next(iter(models_in(RUNS)), PRETRAINED)
