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
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open

from lm import digests
from lm.config.schema import RUNS, ModelConfig
from lm.config.settings import build, settings_of
from lm.errors import ModelError, UserError, one_line
from lm.files import replacing, write_text
from lm.model.direction import Direction
from lm.model.network import RecurrentLM
from lm.model_files import is_readable, open_file, read_json
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
_FLOATS = {"F64", "F32", "BF16", "F16"}
_MAX_HEADER = 8 << 20  # bytes of a safetensors file before its numbers; 130 a tensor are usual
_MAX_WEIGHT = 1e15  # float32 reaches 3e38
# Of the facts in config.json that lm reads.
_FACT_TYPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "trained_on": {"dataset": str, "characters": int, "documents": int},
    "validation": dict.fromkeys(("loss", "perplexity", "bits_per_character", "bits_per_byte"), (int, float)),
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
    return all(is_readable(folder / name, folder) for name in ("config.json", "model.safetensors"))


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
    missing, damaged or of a newer format.

    The sizes in config.json are believed only if the weights have them: a file contains all numbers that its
    header declares, so no network can be larger than its file.
    """
    facts = read_json(folder / "config.json", folder)
    version = facts.get("format_version")
    if not isinstance(version, int):
        raise ModelError(f"{folder / 'config.json'} has no format_version: it does not describe an lm model.")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {version}, but this lm reads at most version {FORMAT_VERSION}:"
            " update lm."
        )
    _check_facts(facts, folder)
    network = _network(facts, tensor_shapes(folder / "model.safetensors"), folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.vocab_size != network.vocab_size:
        raise ModelError(
            f"the weights in {folder} do not match its tokenizer.json: they have rows for"
            f" {network.vocab_size:,} tokens, and its vocabulary has {tokenizer.vocab_size:,}."
        )
    try:
        load_weights(network, read_tensors(folder / "model.safetensors"), folder)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"the weights in {folder} cannot be loaded: {one_line(error, 120)}") from error
    check_weights(folder)
    return network.eval(), tokenizer, facts


def check_weights(folder: Path) -> None:
    """Raise ModelError if the weights of a model folder are not those whose digest is in its config.json."""
    digests.check(
        folder / _WEIGHTS,
        lambda: digests.stored_in(read_json(folder / "config.json", folder), _WEIGHTS),
        'copy or download the model again or, if you have changed the weights yourself, remove "sha256" from'
        " its config.json",
    )


def _check_facts(facts: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if what config.json says about training has the wrong type."""
    for section, names in _FACT_TYPES.items():
        values = facts.get(section)
        wrong = section if not isinstance(values, dict | None) else ""
        for name, expected in names.items():
            value = values.get(name) if isinstance(values, dict) else None
            if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
                wrong = f"{section}.{name}"
        if wrong:
            raise ModelError(f"{folder / 'config.json'} is damaged: '{wrong}' has the wrong type.")


def _network(facts: dict[str, Any], shapes: dict[str, torch.Size], folder: Path) -> RecurrentLM:
    """The network that config.json describes, without weights. Raises ModelError if it is not the one whose
    weights have these shapes."""
    known = settings_of(ModelConfig)
    # Models without this setting precede residual connections.
    settings = {"residual": False, **_section(facts, "model", folder)}
    embedding = shapes.get("embedding.weight", torch.Size())
    try:
        settings = {name: value for name, value in settings.items() if name in known and value is not None}
        config = build(ModelConfig, settings)
        rows = embedding[0] if embedding.numel() and len(embedding) == 2 else 1
        network = RecurrentLM.without_weights(config, rows)
    except UserError as error:
        reason = one_line(error)
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {reason}") from error
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"the sizes in {folder / 'config.json'} are too large for any network.") from error
    _check_shapes(network, shapes, folder)
    return network


def _section(facts: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    section = facts.get(name)
    if not isinstance(section, dict):
        raise ModelError(f"{folder / 'config.json'} does not describe a model: it has no object '{name}'.")
    return section


def tensor_shapes(path: Path) -> dict[str, torch.Size]:
    """The shapes of the weights in a safetensors file, which contains as many numbers as they say.

    Raises ModelError if it is missing, damaged or too large for this machine, or contains anything but
    floating-point numbers.
    """
    with _open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: torch.Size(part.get_shape()) for name, part in slices.items()}
        kinds = {part.get_dtype() for part in slices.values()}
    if wrong := kinds - _FLOATS:
        raise ModelError(f"{path} is damaged: it has numbers of type {one_line(min(wrong), 20)}.")
    return shapes


def _physical_memory() -> int | None:
    """Bytes; None if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ModelError if it is missing or damaged."""
    with _open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises ModelError, also for errors in the block."""
    try:
        with open_file(path, path.parent) as file:
            header, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if (memory := _physical_memory()) and size > memory:
            raise ModelError(
                f"{path} has {size / 1e9:,.1f} GB; this machine's memory has {memory / 1e9:,.1f} GB."
            )
        if header > _MAX_HEADER:
            raise ModelError(f"{path} is damaged or truncated: its header has {header:,} bytes.")
        with safe_open(os.path.realpath(path), "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, MemoryError) as error:
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
    """Copy `weights` into `network`, which may have none yet. Raises ModelError, naming the file's folder
    `where`, if names or shapes do not match, or if a number is not finite or so large that products of two
    would not be."""
    _check_shapes(network, {name: weight.shape for name, weight in weights.items()}, where)
    for name, weight in weights.items():
        low, high = torch.aminmax(weight)
        if not -_MAX_WEIGHT <= low <= high <= _MAX_WEIGHT:  # NaN is not
            raise ModelError(
                f"the weights in {where} are damaged: {name} has numbers that are not finite, or too large."
            )
    assign = network.embedding.weight.is_meta
    # Tensors that were read are a view of the file.
    weights = {name: weight.to(torch.float32, copy=assign) for name, weight in weights.items()}
    if network.config.tie:
        weights["decoder.weight"] = weights["embedding.weight"]
    network.load_state_dict(weights, assign=assign)
    if network.config.tie:
        network.decoder.weight = network.embedding.weight


def _check_shapes(network: RecurrentLM, shapes: dict[str, torch.Size], where: Path) -> None:
    """Raise ModelError, naming the folder `where`, if these are not the shapes of the saved weights."""
    expected = {name: weight.shape for name, weight in network.state_dict().items()}
    if network.config.tie:
        del expected["decoder.weight"]
    wrong = sorted(expected.keys() ^ shapes.keys()) or sorted(
        name for name in expected if expected[name] != shapes[name]
    )
    if wrong:
        names = one_line(", ".join(wrong[:3]))
        raise ModelError(f"the weights in {where} do not match its config.json: {names}.")


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
        old = digests.stored_in(read_json(folder / "config.json", folder), _WEIGHTS)
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
