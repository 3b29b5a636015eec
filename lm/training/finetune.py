"""`--init-from`: training that starts from the weights of another model.

The network takes that model's shape and, unless another one is named, its tokenizer. If the vocabularies
differ, the embedding and decoder rows of tokens that both have are kept. Tokens match if they encode the
same text, even if one is the character "a" and the other the byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lm.config.schema import ModelConfig
from lm.config.settings import build, flag_of, settings_of
from lm.errors import UserError
from lm.model.network import RecurrentLM
from lm.storage.loading import read_model
from lm.storage.model_folder import find_model
from lm.tokenization.kinds import EOS, UNK
from lm.tokenization.tokenizer import Tokenizer

_SHAPE = ("cell", "layers", "hidden_size", "embedding_size", "residual", "tie")
_PER_TOKEN = ("embedding.", "decoder.")  # weights with one row per token


def with_model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `values`, completed by those of the model in `init_from`.

    Raises UserError if they contradict each other.
    """
    folder = find_model(values["init_from"])
    config = read_model(folder)[0].config
    known = settings_of(ModelConfig)
    given = {name: value for name, value in values.items() if name in known}
    wanted = build(ModelConfig, given)
    for name in filter(_SHAPE.__contains__, given):
        if getattr(wanted, name) != getattr(config, name):
            raise UserError(
                f"{flag_of(name)} {getattr(wanted, name)} contradicts {values['init_from']}, where it is"
                f" {getattr(config, name)}: leave out one of the two."
            )
    inherited = {name: getattr(config, name) for name in known}
    return {"tokenizer": str(folder / "tokenizer.json"), **inherited, **values}


def start_from(model: str, network: RecurrentLM, tokenizer: Tokenizer) -> tuple[str, float | None]:
    """Load the weights of `model` into `network`.

    Returns a line saying how many token vectors were kept, and the loss that the model had on its own
    validation text, in nats per character, if it is known.
    """
    other, other_tokenizer, facts = read_model(find_model(model))
    shared = _shared_tokens(tokenizer, other_tokenizer)
    weights, fresh = other.state_dict(), network.state_dict()
    here, there = (torch.tensor(ids, dtype=torch.long) for ids in zip(*shared, strict=True))
    for name in filter(lambda name: name.startswith(_PER_TOKEN), weights):
        mixed = fresh[name].cpu().clone()
        mixed[here] = weights[name][there]
        weights[name] = mixed
    network.load_state_dict(weights)
    line = f"Starting from {model}: kept {len(shared)} of {tokenizer.vocab_size} token vectors.\n"
    validation = facts.get("validation")
    bits = validation.get("bits_per_character") if isinstance(validation, dict) else None
    return line, bits * math.log(2) if isinstance(bits, (int, float)) else None


def _shared_tokens(ours: Tokenizer, theirs: Tokenizer) -> list[tuple[int, int]]:
    """Pairs of ids (ours, theirs) of the tokens that both have."""
    known = {_meaning(theirs, token): token for token in reversed(range(theirs.vocab_size))}
    meanings = ((token, _meaning(ours, token)) for token in range(ours.vocab_size))
    return [(token, known[meaning]) for token, meaning in meanings if meaning in known]


def _meaning(tokenizer: Tokenizer, token: int) -> bytes | str | None:
    """The bytes of a token, or its name if that depends on its neighbors."""
    name = tokenizer.backend.id_to_token(token)
    if name in (EOS, UNK):
        return name
    return tokenizer.bytes_of(token) or name
