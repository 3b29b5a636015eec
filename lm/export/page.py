"""Exports a model as one HTML file that generates text in any browser, without a server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.console.wording import PYTHON_LIBRARY
from lm.errors import UserError
from lm.files.atomic import write_text, writing
from lm.language_model import LanguageModel, require_one_network
from lm.storage.saving import without_paths
from lm.tokenization.kinds import BYTE_OF
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS, train_tokenizer

_FILES = Path(__file__).parent / "html"
_MAX_WEIGHTS = 400_000_000  # bytes; in base64, the longest string of V8 has 536,870,888 characters
_WORKER = ("product.js", "network.js", "sampler.js", "tokenizer.js", "worker.js")
_UNITS = {
    "char": "character",
    "byte": "byte",
    "bpe": "piece of a word",
    "unigram": "piece of a word",
    "word": "word",
}
_SECTIONS = ("normalizer", "pre_tokenizer", "decoder")
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def write_page(model: LanguageModel, path: Path, precision: str = "fp16") -> None:
    """Write an HTML file with everything in it: the weights in `precision`, the tokenizer, and a program that
    generates text. The page loads nothing else and sends nothing.

    Vectors stay in float32. In fp16 and bf16, each number of a matrix is rounded to 11 or 8 significant bits;
    in int8, to a multiple of 1/127 of the largest number of its row. With these weights, the most likely text
    is the model's; it can differ from that of the weights in float32.

    Raises UserError for an ensemble, for a tokenizer of a kind that lm does not train, for weights that fp16
    cannot represent, for more weights than browsers can read, and if the file cannot be written.
    """
    require_one_network(model, "be exported")
    tensors, data = _packed(model.network.stored_weights(), precision)
    if len(data) > _MAX_WEIGHTS:
        raise UserError(
            f"{len(data) / 1e6:,.0f} MB of weights are too many for a page, in which browsers can read"
            f" {_MAX_WEIGHTS / 1e6:,.0f} MB: choose --precision int8 or export to ONNX."
        )
    config = {
        "network": _network_config(model),
        "tokenizer": _tokenizer_config(model.tokenizer),
        "start": model.start_token,
        "suppressed": model.generator.suppressed_tokens,
        "backward": model.backward,
        "monospace": _dataset(model) == "python",  # source code
        "precision": precision,
        "tensors": tensors,
    }
    script, style = _file("page.js"), _file("page.css")
    parts = {
        "name": escape(PurePath(model.name).name or path.stem),
        "style": style,
        "script": script,
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "introduction": escape(_introduction(model)),
        "facts": _facts(model, precision),
        "worker": "".join(map(_file, _WORKER)),
        "config": json.dumps(config, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "weights": base64.b64encode(data).decode(),
    }
    with writing(path):
        write_text(path, _filled(_file("page.html"), parts))


def _packed(weights: Mapping[str, Tensor], precision: str) -> tuple[list[dict[str, Any]], bytearray]:
    """The name, shape and offset in bytes of each tensor, and the bytes of all."""
    tensors, data = [], bytearray()
    for name, weight in weights.items():
        tensors.append({"name": name, "shape": list(weight.shape), "offset": len(data)})
        for part in _parts(name, weight.cpu(), precision):
            data += part.tobytes()
            data += bytes(-len(data) % 4)
    return tensors, data


def _parts(name: str, weight: Tensor, precision: str) -> list[np.ndarray]:
    """The arrays that represent a tensor: a vector in float32; a matrix in 16 bits, or as a scale for each
    row and 8 bits for each number."""
    if weight.dim() == 1:
        return [weight.numpy()]
    if precision == "int8":
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        return [scales.numpy(), (weight / scales[:, None]).round().to(torch.int8).numpy()]
    half = weight.to(_HALVES[precision])
    if not bool(half.isfinite().all()):
        raise UserError(f"{name} has numbers that {precision} cannot represent: choose bf16 or int8.")
    return [half.view(torch.int16).numpy()]


def _network_config(model: LanguageModel) -> dict[str, Any]:
    config = model.network.config
    names = ("cell", "layers", "hidden_size", "embedding_size", "residual", "tie")
    return {**{name: getattr(config, name) for name in names}, "vocab_size": model.network.vocab_size}


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """What the page needs to split text as `tokenizer` does. Raises UserError if it cannot."""
    spec = json.loads(tokenizer.backend.to_str())
    _check_supported(tokenizer, spec)
    vocab = tokenizer.backend.get_vocab()
    names: list[str | None] = [None] * tokenizer.vocab_size
    for name, token in vocab.items():
        names[token] = name
    config: dict[str, Any] = {
        "kind": tokenizer.kind,
        "names": names,
        "special": [added["id"] for added in spec["added_tokens"]],
        "eos": tokenizer.eos,
        "unk": tokenizer.unk,
        "end": tokenizer.end,
    }
    if tokenizer.kind == "bpe":
        config["merges"] = [vocab[part] for merge in spec["model"]["merges"] for part in merge]
    if tokenizer.kind == "unigram":
        config["scores"] = [score for _, score in spec["model"]["vocab"]]
    return config


def _check_supported(tokenizer: Tokenizer, spec: dict[str, Any]) -> None:
    """Raise UserError unless a tokenizer splits text by the same rules as one of ours."""
    kind, supported = tokenizer.kind, False
    if kind in KINDS and all(added["special"] for added in spec["added_tokens"]):
        ours = json.loads(train_tokenizer(kind, ["a b ab ba abab"] * 9, 300).backend.to_str())
        supported = _rules(spec) == _rules(ours)
    if kind in ("bpe", "unigram"):  # every text must have tokens
        supported &= set(BYTE_OF) <= set(tokenizer.backend.get_vocab())
    if kind == "word":  # in which the decoder would leave them out
        supported &= not spec["added_tokens"]
    if not supported:
        raise UserError(
            f"the tokenizer of this model ({kind}) has rules that a page cannot follow: export a model with"
            f" one of the tokenizers that lm trains ({', '.join(KINDS)})."
        )


def _rules(spec: dict[str, Any]) -> dict[str, Any]:
    """What a tokenizer.json does to a text, apart from its vocabulary."""
    learned = ("vocab", "merges", "unk_token", "unk_id", "fuse_unk")
    model = {name: value or None for name, value in spec["model"].items() if name not in learned}
    return {"model": model, **{name: spec[name] for name in _SECTIONS}}


def _introduction(model: LanguageModel) -> str:
    cell, dataset = model.network.config.cell.upper(), _dataset(model)
    read = PYTHON_LIBRARY if dataset == "python" else dataset or "some text"
    order = ", from the last to the first" if model.backward else ""
    return (
        f"This small neural network, {'a' if cell == 'GRU' else 'an'} {cell}, has read {read} and now writes"
        f" more of it, one {_UNITS[model.tokenizer.kind]} at a time{order}. It runs here, in your browser."
    )


def _dataset(model: LanguageModel) -> str:
    """What a model was trained on, without the folders of a path; empty if unknown."""
    return without_paths(str((model.facts.get("trained_on") or {}).get("dataset", "")))


def _facts(model: LanguageModel, precision: str) -> str:
    """The facts of the footer, as HTML."""
    config, facts = model.network.config, model.facts
    trained_on, validation = facts.get("trained_on") or {}, facts.get("validation") or {}
    rows = {
        "Network": f"{config.cell.upper()}, {config.layers} × {config.hidden_size} units",
        "Parameters": f"{model.network.parameter_count():,}, {precision}",
        "Vocabulary": f"{model.tokenizer.vocab_size:,} tokens ({model.tokenizer.kind})",
        "Trained on": _dataset(model),
        "Training text": _quantity(trained_on, "characters", ",", " characters"),
        "Bits per character": _quantity(validation, "bits_per_character", ".2f"),
    }
    rows = {name: value for name, value in rows.items() if value}
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows.items()
    )


def _quantity(facts: dict[str, Any], name: str, form: str, unit: str = "") -> str:
    """A number in config.json, which anyone may have written; empty if it is not a number."""
    value = facts.get(name)
    return f"{value:{form}}{unit}" if isinstance(value, (int, float)) else ""


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced, once and only in the template itself."""
    pieces = []
    for piece in template.split("{{"):
        name, closed, rest = piece.partition("}}")
        pieces.append(parts[name] + rest if closed else piece)
    return "".join(pieces)


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """The hash of a script or style by which the page's Content-Security-Policy allows it and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
