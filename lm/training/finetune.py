"""`--init-from`: a training that begins with the weights of another model.

The shape of the network is that model's, and so is the tokenizer unless another one is asked for. With
another vocabulary, the vectors of the tokens that both know are kept: those that stand for the same
text, though one vocabulary may have the character "a" and the other the byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lm.config.schema import ModelConfig
from lm.config.settings import build, flag_of, settings_of
from lm.errors import UserError
from lm.model.network import RecurrentLM
from lm.saving import find_model, read_model
from lm.tokenization.tokenizer import EOS, UNK, Tokenizer

_SHAPE = ("cell", "layers", "hidden_size", "embedding_size", "residual", "tie")
_OF_VOCABULARY = ("embedding.", "decoder.")  # weights with a row for each token


def with_model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `values` of a person, completed by those of the model in `init_from`. Raises
    UserError where they contradict each other."""
    folder = find_model(values["init_from"])
    theirs = read_model(folder)[0].config
    given = {name: value for name, value in values.items() if name in settings_of(ModelConfig)}
    ours = build(ModelConfig, given)
    for name in filter(_SHAPE.__contains__, given):
        model = getattr(theirs, name)
        if getattr(ours, name) != model:
            raise UserError(
                f"{flag_of(name)} {getattr(ours, name)} contradicts {values['init_from']}, where it is"
                f" {model}: leave it out, or --init-from."
            )
    theirs = {name: getattr(theirs, name) for name in settings_of(ModelConfig)}
    return {"tokenizer": str(folder / "tokenizer.json"), **theirs, **values}


def start_from(model: str, network: RecurrentLM, tokenizer: Tokenizer) -> str:
    """Put the weights of `model` into `network`; a line that tells which vectors were kept."""
    folder = find_model(model)
    other, their_tokenizer, _ = read_model(folder)
    rows = _shared(tokenizer, their_tokenizer)
    weights, fresh = other.state_dict(), network.state_dict()
    here, there = (torch.tensor(ids, dtype=torch.long) for ids in zip(*rows, strict=True))
    for name in filter(lambda name: name.startswith(_OF_VOCABULARY), weights):
        mixed = fresh[name].cpu().clone()
        mixed[here] = weights[name][there]
        weights[name] = mixed
    network.load_state_dict(weights)
    return f"Beginning with {model}: kept {len(rows)} of {tokenizer.vocab_size} token vectors.\n"


def _shared(ours: Tokenizer, theirs: Tokenizer) -> list[tuple[int, int]]:
    """The tokens that both have: the id in ours, the id in theirs."""
    known = {_meaning(theirs, token): token for token in reversed(range(theirs.vocab_size))}
    meanings = ((token, _meaning(ours, token)) for token in range(ours.vocab_size))
    return [(token, known[meaning]) for token, meaning in meanings if meaning in known]


def _meaning(tokenizer: Tokenizer, token: int) -> bytes | str | None:
    """What a token stands for: bytes where that is known, else its name."""
    name = tokenizer.backend.id_to_token(token)
    if name in (EOS, UNK):
        return name
    return tokenizer.bytes_of(token) or name
