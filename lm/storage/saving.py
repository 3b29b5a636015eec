"""Saves a model: writes its folder."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from lm.errors import ModelError, UserError
from lm.files import digests
from lm.files.atomic import flush_to_disk, replacing, write_text
from lm.files.model_files import read_json
from lm.files.tensor_files import write_tensors
from lm.model.network import RecurrentLM
from lm.storage.model_card import model_card
from lm.storage.model_folder import FORMAT_VERSION, WEIGHTS
from lm.storage.remote_code import AUTO_MAP, REMOTE_CODE, remote_code as code_for_transformers
from lm.storage.transformers_files import config_keys, tokenizer_files
from lm.tokenization.tokenizer import Tokenizer
from lm.version import __version__

_KEPT = ("license", "language", "trained_on", "validation", "test")  # of the facts of a model
_PATH = re.compile(r"[/\\~]|\.{1,2}([/\\]|$)|[A-Za-z]:[/\\]")  # the beginning of what can only be a path


def save_model(
    folder: str | Path,
    network: RecurrentLM,
    tokenizer: Tokenizer,
    facts: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
    remote_code: bool = False,
) -> None:
    """Write a model folder with weights of type `dtype`, replacing each file atomically.

    No file is replaced before all are written: on a full disk, the previous model stays as it was. Two files
    cannot be replaced at once: until the new weights are in place, config.json accepts the old ones as well,
    so that a kill at any time leaves a readable model if the new one has the same settings and tokenizer.

    `name` is what the model card calls the model: a Hub id, or by default the name of the folder.
    `remote_code` adds the code with which transformers loads the model without lm.

    Raises UserError for weights that `dtype` cannot represent, and OSError.
    """
    folder = Path(folder)
    weights = {name: weight.cpu().to(dtype) for name, weight in network.stored_weights().items()}
    if dtype == torch.float16:
        for name_of_weight, weight in weights.items():
            if not weight.isfinite().all():
                raise UserError(
                    f"{name_of_weight} has numbers that float16 cannot represent: save without `half`."
                )
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "format_version": FORMAT_VERSION,
        "lm_version": __version__,
        "model": asdict(network.config),
        "tokenizer": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "parameters": network.parameter_count(),
        **{name: facts[name] for name in _KEPT if name in facts},
        **config_keys(network.config, tokenizer, facts),
        **({"auto_map": AUTO_MAP} if remote_code else {}),
    }
    if isinstance(trained_on := facts.get("trained_on"), dict):
        facts["trained_on"] = _without_paths(trained_on)
    card = model_card(name or folder.resolve().name, facts)
    files = {"README.md": card, **tokenizer_files(tokenizer)}
    if remote_code:
        files[REMOTE_CODE] = code_for_transformers()
    with replacing(folder / WEIGHTS) as partial:
        digest = write_tensors(partial, weights, metadata={"format": "pt"})
        flush_to_disk(partial)
        files["config.json"] = _config(facts, _digests_before(folder, digest))
        with ExitStack() as replaced:
            for file, content in files.items():
                path = replaced.enter_context(replacing(folder / file))
                path.write_text(content, encoding="utf-8", newline="")
    write_text(folder / "config.json", _config(facts, digest))


def name_of_path(path: str) -> str:
    """The last part of a path. A file or folder `python` becomes "./python", because "python" is the library
    of Python; `-`, standard input, is not a path."""
    name = PureWindowsPath(path).name or Path(path).resolve().name  # separators are / and \\
    return f"./{name}" if name == "python" != path else name


def without_paths(dataset: str) -> str:
    """A training text as config.json names it, with the last part of each path: "a.txt + org/set" for
    "/home/me/a.txt + org/set"."""
    names = dataset.split(" + ")
    return " + ".join(name_of_path(name) if _PATH.match(name) else name for name in names)


def _without_paths(trained_on: dict[str, Any]) -> dict[str, Any]:
    """The object of that name in config.json, of which earlier versions wrote paths."""
    names = {name: trained_on.get(name) for name in ("dataset", "init_from")}
    return trained_on | {
        name: without_paths(value) for name, value in names.items() if isinstance(value, str)
    }


def _digests_before(folder: Path, new: str) -> list[str] | None:
    """The digests of the weights in a folder and of those about to replace them; None if there are weights
    without a digest."""
    if not (folder / WEIGHTS).exists():
        return [new]
    try:
        old = digests.stored_in(read_json(folder / "config.json", folder), WEIGHTS)
    except ModelError:
        return None
    return None if old is None else [new, *(old if isinstance(old, list) else [old])]


def _config(facts: dict[str, Any], digest: str | list[str] | None) -> str:
    facts = facts if digest is None else {**facts, digests.FIELD: {WEIGHTS: digest}}
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
