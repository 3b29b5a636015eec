"""What a model folder contains for transformers: its tokenizer, and keys in config.json."""

from __future__ import annotations

import json
from typing import Any

from lm.config.resolved import NetworkConfig
from lm.tokenization.kinds import EOS
from lm.tokenization.special_tokens import is_single_document, start_token, suppressed_tokens
from lm.tokenization.tokenizer import Tokenizer

_PADDING = ("<pad>", "[PAD]", "<|pad|>", "<PAD>")  # usual names; lm itself needs no such token


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The contents of tokenizer.json and tokenizer_config.json by name.

    If a caller adds special tokens (lm never does), a text begins with <eos>, which marks its start whichever
    token the network reads there: see `TextGenerator.starts_explicitly`. If a line break were a special token
    of transformers, decoded text would not contain it.
    """
    spec = json.loads(tokenizer.backend.to_str())
    config = _config(tokenizer, (spec["pre_tokenizer"] or {}).get("add_prefix_space"))
    spec["post_processor"] = _post_processor(tokenizer.eos, spec["post_processor"])
    return {
        "tokenizer.json": json.dumps(spec, indent=2, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def _config(tokenizer: Tokenizer, add_prefix_space: bool | None) -> dict[str, Any]:
    name = tokenizer.backend.id_to_token
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": EOS,
        "eos_token": EOS,
        "pad_token": name(_padding(tokenizer)),
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that contains "<eos>" literally is still text
    }
    if tokenizer.unk is not None:
        config["unk_token"] = name(tokenizer.unk)
    if add_prefix_space:  # transformers before 5 would turn it off
        config["add_prefix_space"] = True
    return config


def _post_processor(eos: int, present: dict[str, Any] | None) -> dict[str, Any]:
    """One that adds <eos> at the start, after the `present` one, which adds no tokens."""
    start = {"SpecialToken": {"id": EOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB"))
    template = {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, second],
        "special_tokens": {EOS: {"id": EOS, "ids": [eos], "tokens": [EOS]}},
    }
    steps = [] if present is None else present.get("processors", [present])
    return {"type": "Sequence", "processors": [*steps, template]} if steps else template


def config_keys(network: NetworkConfig, tokenizer: Tokenizer, facts: dict[str, Any]) -> dict[str, Any]:
    """The keys of config.json that only transformers reads: see RecurrentLMConfig."""
    single = is_single_document(facts)
    return {
        "model_type": "recurrent_lm",
        "architectures": ["RecurrentLMForCausalLM"],
        "dtype": "float32",  # even if the file has float16: like lm, transformers then computes in float32
        "hidden_size": network.hidden_size,
        "num_hidden_layers": network.layers,
        "tie_word_embeddings": network.tie,
        "bos_token_id": tokenizer.eos,
        "start_token_id": start_token(tokenizer, single),
        "eos_token_id": tokenizer.end,
        "pad_token_id": _padding(tokenizer),
        "suppress_tokens": suppressed_tokens(tokenizer, single) or None,
    }


def _padding(tokenizer: Tokenizer) -> int:
    """A token for padding, which is never read: the tokenizer's own, else <eos>."""
    found = map(tokenizer.backend.token_to_id, _PADDING)
    return next((token for token in found if token is not None), tokenizer.eos)
