"""A model on disk and on the Hugging Face Hub: read, write, upload.

config.json             format_version, the model's settings, its training data, its validation results, the
                        SHA-256 of the weights
model.safetensors       the weights
tokenizer.json          the Hugging Face tokenizers format
tokenizer_config.json   what transformers' AutoTokenizer needs to know in addition; lm does not read it
README.md               model card
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lm import digests
from lm.config.schema import RUNS, ModelConfig
from lm.config.settings import build, settings_of
from lm.errors import ModelError, UserError, one_line
from lm.files import replacing, write_text
from lm.model.direction import Direction
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import EOS, Tokenizer

FORMAT_VERSION = 1
PRETRAINED = Path(__file__).parent / "pretrained"  # the model that ships with the package
# In the order of a safetensors file.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}
_WEIGHTS = "model.safetensors"
FILES = ("config.json", _WEIGHTS, "tokenizer.json", "tokenizer_config.json", "README.md")
# lm-eval and others begin a text with eos_token. A text that contains "<eos>" literally is still text.
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": EOS,
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": True,
}


def find_model(model: str | Path) -> Path:
    """The folder of a model, given by its path, its Hub id or "pretrained", unless that is a folder.

    Downloads the model if it is on the Hub. Raises ModelError if there is none.
    """
    path = Path(model).expanduser()
    if path.is_dir() and str(model):
        return path
    if path.exists() and str(model):
        raise ModelError(f"{model} is a file; name the folder that contains the model.")
    if str(model) == PRETRAINED.name:
        return PRETRAINED
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)) or str(model).startswith("."):
        raise ModelError(f"there is no model folder '{model}'.")
    try:
        return Path(huggingface_hub.snapshot_download(str(model), allow_patterns=[*FILES]))
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise ModelError(f"there is no folder and no Hub model '{model}'.") from error
    except Exception as error:
        raise ModelError(
            f"there is no folder '{model}', and the Hub cannot be searched for it: {one_line(error, 80)}"
        ) from error


def is_model(folder: Path) -> bool:
    """Whether a folder contains a saved model."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def models_in(folder: Path) -> list[Path]:
    """The models directly in `folder`, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and is_model(path)]
    return sorted(found, key=lambda path: (path / "model.safetensors").stat().st_mtime, reverse=True)


def default_model() -> Path:
    """The newest run in runs/, else the pretrained model."""
    return next(iter(models_in(RUNS)), PRETRAINED)


def read_model(folder: Path) -> tuple[RecurrentLM, Tokenizer, dict[str, Any]]:
    """Read the network, the tokenizer and config.json of a model folder. Raises ModelError if a file is
    missing, damaged or of a newer format."""
    facts = read_json(folder / "config.json", folder)
    version = facts.get("format_version")
    if not isinstance(version, int):
        raise ModelError(f"{folder / 'config.json'} has no format_version: it does not describe an lm model.")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {version}, but this lm reads at most version {FORMAT_VERSION}:"
            " update lm."
        )
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    known = settings_of(ModelConfig)
    try:
        # Models without this setting precede residual connections.
        settings = {"residual": False, **facts["model"]}
        config = build(ModelConfig, {k: v for k, v in settings.items() if k in known and v is not None})
        network = RecurrentLM(config, tokenizer.vocab_size)
    except (UserError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {error}") from error
    load_weights(network, read_tensors(folder / "model.safetensors"), folder)
    check_weights(folder)
    return network.eval(), tokenizer, facts


def check_weights(folder: Path) -> None:
    """Raise ModelError if the weights of a model folder are not those whose digest is in its config.json."""
    digests.check(
        folder / _WEIGHTS,
        lambda: _stored_digest(read_json(folder / "config.json", folder)),
        'copy or download the model again or, if you have changed the weights yourself, remove "sha256" from'
        " its config.json",
    )


def _stored_digest(facts: dict[str, Any]) -> Any:
    stored = facts.get(digests.FIELD)
    return stored.get(_WEIGHTS) if isinstance(stored, dict) else stored


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder. Raises ModelError if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not a model folder: it has no {path.name}.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it does not contain a JSON object.")
    return value


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ModelError if it is missing or damaged."""
    if not path.is_file():
        raise ModelError(f"{path.parent} is incomplete: {path.name} is missing.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or truncated: {one_line(error)}") from error


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write a safetensors file, tensor by tensor, and return its SHA-256.

    Its bytes are those of `safetensors.torch.save`, which holds them in memory twice. The files of
    `save_file` may be read only by their owner, and its error does not say that the disk is full.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = list(_DTYPES)
    ordered = sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    described = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    described += b" " * (-len(described) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def write(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)

        write(len(described).to_bytes(8, "little") + described)
        for _, tensor in ordered:
            # A new tensor of bytes: one of a single number can have a stride that `view` rejects.
            flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
            flat.view(tensor.shape).copy_(tensor.detach())
            write(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(network: RecurrentLM, weights: dict[str, torch.Tensor], where: Path) -> None:
    """Copy `weights` into `network`. Raises ModelError, naming the file's folder `where`, if names or shapes
    do not match."""
    expected = _weights(network)
    wrong = sorted(expected.keys() ^ weights.keys()) or sorted(
        name for name in expected if expected[name].shape != weights[name].shape
    )
    if wrong:
        raise ModelError(f"the weights in {where} do not match its config.json: {', '.join(wrong[:3])}.")
    if network.config.tie:
        weights = {**weights, "decoder.weight": weights["embedding.weight"]}
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})


def save_model(
    folder: str | Path,
    network: RecurrentLM,
    tokenizer: Tokenizer,
    facts: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> None:
    """Write a model folder with weights of type `dtype`, replacing each file atomically.

    Two files cannot be replaced at once: until the new weights are in place, config.json accepts the old
    ones as well, so that a kill at any time leaves a readable model.

    `name` is what the model card calls the model: a Hub id, or by default the name of the folder.
    """
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
    write_text(folder / "tokenizer_config.json", json.dumps(_TOKENIZER_CONFIG, indent=2) + "\n")
    weights = {name: weight.to(dtype) for name, weight in _weights(network).items()}
    with replacing(folder / _WEIGHTS) as partial:
        digest = write_tensors(partial, weights, metadata={"format": "pt"})
        _write_config(folder, facts, _digests_before(folder, digest))
    _write_config(folder, facts, digest)
    write_text(folder / "README.md", _model_card(name or folder.resolve().name, facts))


def _digests_before(folder: Path, new: str) -> list[str] | None:
    """The digests of the weights in a folder and of those about to replace them; None if there are weights
    without a digest."""
    if not (folder / _WEIGHTS).exists():
        return [new]
    try:
        old = _stored_digest(read_json(folder / "config.json", folder))
    except ModelError:
        return None
    return None if old is None else [new, *(old if isinstance(old, list) else [old])]


def _write_config(folder: Path, facts: dict[str, Any], digest: str | list[str] | None) -> None:
    facts = facts if digest is None else {**facts, digests.FIELD: {_WEIGHTS: digest}}
    write_text(folder / "config.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def upload(folder: str | Path, repo_id: str, private: bool) -> str:
    """Upload a model folder to the Hub as `repo_id`; returns its URL. Raises UserError if that fails."""
    try:
        api = huggingface_hub.HfApi()
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
        return str(url)
    except Exception as error:
        raise UserError(f"cannot upload the model to '{repo_id}': {one_line(error)}") from error


def _weights(network: RecurrentLM) -> dict[str, torch.Tensor]:
    """The tensors to save; a tied matrix is saved once."""
    weights = {name: weight.contiguous().cpu() for name, weight in network.state_dict().items()}
    if network.config.tie:
        del weights["decoder.weight"]
    return weights


def _model_card(name: str, facts: dict[str, Any]) -> str:
    """The README.md of a model that `lm.load(name)` loads."""
    model, trained_on, validation = facts["model"], facts.get("trained_on"), facts.get("validation")
    backward = Direction(model["direction"]) is Direction.BACKWARD
    lines = [
        "---",
        "library_name: lm",
        "pipeline_tag: text-generation",
        f"tags: [{model['cell']}, recurrent, language-model, {facts['tokenizer']}-level]",
        "---",
        f"# {name.split('/')[-1]}",
        "",
        f"{model['cell'].upper()} language model with {_count(model['layers'], 'layer')} of"
        f" {model['hidden_size']} units: {facts['parameters']:,} parameters, a vocabulary of"
        f" {facts['vocab_size']:,} tokens ({facts['tokenizer']}).",
    ]
    if backward:
        lines += ["", "The model reads right to left: it generates the text before a prompt."]
    if trained_on:
        lines += [
            "",
            f"Trained on `{trained_on['dataset']}`: {_count(trained_on['characters'], 'character')} in"
            f" {_count(trained_on['documents'], 'document')}.",
        ]
    if validation:
        lines += [
            "",
            "| validation | |",
            "|---|---|",
            f"| loss (nats per token) | {validation['loss']:.4f} |",
            f"| perplexity | {validation['perplexity']:.2f} |",
            f"| bits per character | {validation['bits_per_character']:.4f} |",
            f"| bits per byte | {validation['bits_per_byte']:.4f} |",
        ]
    lines += ["", "```python", "import lm", "", f'model = lm.load("{name}")']
    if backward:
        lines.append("print(model.generate(max_new_tokens=400)[0].text)")
    else:
        lines += [
            "for piece in model.stream(max_new_tokens=400):",
            '    print(piece.text, end="", flush=True)',
        ]
    return "\n".join([*lines, "```", ""])


def _count(number: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
