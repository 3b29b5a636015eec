"""Loads a model from its folder: the network, the tokenizer and config.json, each checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lm.config.schema import ModelConfig
from lm.config.settings import build, settings_of
from lm.errors import ModelError, UserError, one_line
from lm.files import digests
from lm.files.model_files import read_json
from lm.files.tensor_files import read_tensors, tensor_shapes
from lm.model.network import RecurrentLM
from lm.storage.model_folder import WEIGHTS, read_config
from lm.tokenization.tokenizer import Tokenizer

_MAX_WEIGHT = 1e15  # float32 reaches 3e38
# The types of the values in config.json that lm reads.
_FACT_TYPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "trained_on": {"dataset": str, "fingerprint": str, "characters": int, "documents": int},
    "validation": dict.fromkeys(("loss", "perplexity", "bits_per_character", "bits_per_byte"), (int, float)),
}


def read_model(folder: Path) -> tuple[RecurrentLM, Tokenizer, dict[str, Any]]:
    """Read the network, the tokenizer and config.json of a model folder. Raises ModelError if a file is
    missing, damaged or of a newer format.

    The sizes in config.json are believed only if the weights have them: a file contains all numbers that its
    header declares, so no network can be larger than its file.
    """
    facts = read_config(folder)
    _check_facts(facts, folder)
    network = _network(facts, tensor_shapes(folder / WEIGHTS), folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.vocab_size != network.vocab_size:
        raise ModelError(
            f"the weights in {folder} do not match its tokenizer.json: they have rows for"
            f" {network.vocab_size:,} tokens, and its vocabulary has {tokenizer.vocab_size:,}."
        )
    try:
        load_weights(network, read_tensors(folder / WEIGHTS), folder)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"the weights in {folder} cannot be loaded: {one_line(error, 120)}") from error
    check_weights(folder)
    return network.eval(), tokenizer, facts


def check_weights(folder: Path) -> None:
    """Raise ModelError if the weights of a model folder are not those whose digest is in its config.json."""
    digests.check(
        folder / WEIGHTS,
        lambda: digests.stored_in(read_json(folder / "config.json", folder), WEIGHTS),
        'copy or download the model again or, if you have changed the weights yourself, remove "sha256" from'
        " its config.json",
    )


def _check_facts(facts: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if what config.json says about training has the wrong type."""
    if wrong := next(_wrong_facts(facts), None):
        raise ModelError(f"{folder / 'config.json'} is damaged: '{wrong}' has the wrong type.")


def _wrong_facts(facts: dict[str, Any]) -> Iterator[str]:
    for section, types in _FACT_TYPES.items():
        values = facts.get(section)
        if not isinstance(values, dict | None):
            yield section
            continue
        for name, expected in types.items():
            value = (values or {}).get(name)
            if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
                yield f"{section}.{name}"


def _network(facts: dict[str, Any], shapes: dict[str, torch.Size], folder: Path) -> RecurrentLM:
    """The network that config.json describes, without weights. Raises ModelError if it is not the one whose
    weights have these shapes."""
    described = facts.get("model")
    if not isinstance(described, dict):
        raise ModelError(f"{folder / 'config.json'} does not describe a model: it has no object 'model'.")
    known = settings_of(ModelConfig)
    # Models without this setting precede residual connections.
    settings = {"residual": False, **described}
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


def load_weights(network: RecurrentLM, weights: dict[str, torch.Tensor], where: Path) -> None:
    """Copy `weights` into `network`, which may have none yet. Raises ModelError, naming the file's folder
    `where`, if names or shapes do not match, or if a number is not finite or so large that products of two
    would not be."""
    _check_shapes(network, {name: weight.shape for name, weight in weights.items()}, where)
    for name, weight in weights.items():
        # As Python's numbers: torch would round the limit to the type of the weight, in float16 to infinity.
        low, high = map(float, torch.aminmax(weight))
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
    expected = {name: weight.shape for name, weight in network.stored_weights().items()}
    wrong = sorted(expected.keys() ^ shapes.keys()) or sorted(
        name for name in expected if expected[name] != shapes[name]
    )
    if wrong:
        names = one_line(", ".join(wrong[:3]))
        raise ModelError(f"the weights in {where} do not match its config.json: {names}.")
