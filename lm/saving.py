"""A model on disk and on the Hugging Face Hub: save, load, push.

config.json         format_version, the model's settings, what it was trained on, its figures
model.safetensors   the weights
tokenizer.json      Hugging Face tokenizers' own format
README.md           model card
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lm.config.schema import RUNS, ModelConfig
from lm.config.settings import build, settings_of
from lm.errors import ModelError, UserError, one_line
from lm.files import replacing, write_text
from lm.model.device import PRECISIONS, choose_device, choose_precision
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm.language_model import LanguageModel

FORMAT_VERSION = 1
PRETRAINED = Path(__file__).parent / "pretrained"
_FILES = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]


def load(model: str | Path, device: str = "auto", precision: str = "fp32") -> LanguageModel:
    """Load a run, a saved folder or a Hub id onto "cpu", "cuda", "mps" or "auto", to be run in "fp32",
    "bf16", "fp16" (on a GPU), "int8" (on a CPU) or "auto".

    Raises ModelError if there is no such model, or if it is damaged or from a newer version.
    """
    from lm.language_model import LanguageModel

    where = choose_device(device)
    network, tokenizer, facts = read_model(find_model(model))
    if precision != "int8":
        precision = PRECISIONS[choose_precision(precision, where)]
    return LanguageModel(network.to(where), tokenizer, facts, precision)


def find_model(model: str | Path) -> Path:
    """The folder of a model that is named by its path or its Hub id."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{model} is a file; name the folder that holds the model.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)) or str(model).startswith("."):
        raise ModelError(f"there is no model folder '{model}'.")
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(str(model), allow_patterns=_FILES))
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"there is no folder and no Hub model '{model}'.") from error
    except Exception as error:
        raise ModelError(
            f"there is no folder '{model}', and the Hub cannot be reached to look for a model of"
            f" that name: {one_line(error, 80)}"
        ) from error


def is_model(folder: Path) -> bool:
    """Whether a folder holds a saved model."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def models_in(folder: Path) -> list[Path]:
    """The models right below `folder`, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and is_model(path)]
    return sorted(found, key=lambda path: (path / "model.safetensors").stat().st_mtime, reverse=True)


def default_model() -> Path:
    """The newest run below runs/, else the small model that ships with the package."""
    return next(iter(models_in(RUNS)), PRETRAINED)


def read_model(folder: Path) -> tuple[RecurrentLM, Tokenizer, dict[str, Any]]:
    """Read the network, the tokenizer and config.json of a model folder. Raises ModelError."""
    facts = read_json(folder / "config.json", folder)
    version = facts.get("format_version")
    if not isinstance(version, int):
        raise ModelError(f"{folder / 'config.json'} is not a model of this program.")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {version}, and this program knows {FORMAT_VERSION}: update it."
        )
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    known = settings_of(ModelConfig)
    try:
        # Models without the setting are from before layers could add to what they read.
        settings = {"residual": False, **facts["model"]}
        config = build(ModelConfig, {k: v for k, v in settings.items() if k in known and v is not None})
        network = RecurrentLM(config, tokenizer.vocab_size)
    except (UserError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {error}") from error
    load_weights(network, read_tensors(folder / "model.safetensors"), folder)
    return network.eval(), tokenizer, facts


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Read a JSON object that belongs to a model folder. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is no model folder: it has no {path.name}.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object.")
    return value


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ModelError if it is missing or cut short."""
    if not path.is_file():
        raise ModelError(f"{path.parent} is incomplete: {path.name} is missing.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut short: {one_line(error)}") from error


def load_weights(network: RecurrentLM, weights: dict[str, torch.Tensor], where: Path) -> None:
    """Put `weights` into `network`. Raises ModelError where names or shapes disagree."""
    expected = _weights(network)
    wrong = sorted(expected.keys() ^ weights.keys()) or sorted(
        name for name in expected if expected[name].shape != weights[name].shape
    )
    if wrong:
        raise ModelError(f"the weights of {where} disagree with its config.json, at {', '.join(wrong[:3])}.")
    if network.config.tie:
        weights = {**weights, "decoder.weight": weights["embedding.weight"]}
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})


def save_model(
    folder: str | Path,
    network: RecurrentLM,
    tokenizer: Tokenizer,
    facts: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model folder, its weights as `dtype`; each file replaces the old one in one step."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "format_version": FORMAT_VERSION,
        "model": asdict(network.config),
        "tokenizer": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "parameters": network.parameter_count(),
        **{k: v for k, v in facts.items() if k in ("trained_on", "validation", "test")},
    }
    tokenizer.save(folder / "tokenizer.json")
    weights = {name: weight.to(dtype) for name, weight in _weights(network).items()}
    with replacing(folder / "model.safetensors") as partial:
        # Not save_file, which makes files that only their owner may read.
        partial.write_bytes(save(weights, metadata={"format": "pt"}))
    write_text(folder / "config.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", _model_card(folder.resolve().name, facts))


def push(model: LanguageModel, repo_id: str, private: bool) -> str:
    """Upload a model to the Hub as `repo_id`; its address. Raises UserError if that fails."""
    import tempfile

    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / repo_id.split("/")[-1]
            model.save(folder)
            api.upload_folder(repo_id=repo_id, folder_path=folder)
        return str(url)
    except Exception as error:
        raise UserError(f"the model could not be pushed to '{repo_id}': {one_line(error)}") from error


def _weights(network: RecurrentLM) -> dict[str, torch.Tensor]:
    """The tensors to save; a tied matrix is saved once."""
    weights = {name: weight.contiguous().cpu() for name, weight in network.state_dict().items()}
    if network.config.tie:
        del weights["decoder.weight"]
    return weights


def _model_card(name: str, facts: dict[str, Any]) -> str:
    model, figures = facts["model"], facts.get("validation")
    backward = model["direction"] == "backward"
    trained = facts.get("trained_on", {})
    lines = [
        "---",
        "library_name: lm",
        "pipeline_tag: text-generation",
        f"tags: [{model['cell']}, recurrent, language-model, {facts['tokenizer']}-level]",
        "---",
        f"# {name}",
        "",
        f"Recurrent language model ({model['cell'].upper()}) of {model['layers']} layer(s) of"
        f" {model['hidden_size']} units: {facts['parameters']:,} parameters,"
        f" {facts['vocab_size']:,} {facts['tokenizer']} tokens."
        + (" It reads right to left." if backward else ""),
    ]
    if trained:
        lines += [
            "",
            f"Trained on `{trained['dataset']}`: {trained['characters']:,} characters in"
            f" {trained['documents']:,} document(s).",
        ]
    if figures:
        lines += [
            "",
            "| validation | |",
            "|---|---|",
            f"| loss (nats per token) | {figures['loss']:.4f} |",
            f"| perplexity | {figures['perplexity']:.2f} |",
            f"| bits per character | {figures['bits_per_character']:.4f} |",
            f"| bits per byte | {figures['bits_per_byte']:.4f} |",
        ]
    lines += [
        "",
        "```python",
        "import lm",
        "",
        *(
            [f'print(lm.load("{name}").generate("", max_new_tokens=400)[0].text)']
            if backward
            else [
                f'for piece in lm.load("{name}").stream("", max_new_tokens=400):',
                '    print(piece.text, end="", flush=True)',
            ]
        ),
        "```",
        "",
    ]
    return "\n".join(lines)
