"""What the kinds of tokenizers are made of, and how to recognize each in a tokenizer.json."""

from __future__ import annotations

from typing import Any

from tokenizers import pre_tokenizers

EOS, UNK = "<eos>", "<unk>"
ONE_CHARACTER = r"[\s\S]"
# Whitespace as in str.split: the pattern's own class lacks the ASCII separators.
WHITESPACE = r"[\s\x1c-\x1f]+"


def _byte_of_names() -> dict[str, int]:
    """The byte of each character in the name of a byte-level token (GPT-2's table): printable ones are
    themselves, and those from 256 on are the other bytes in order."""
    names = pre_tokenizers.ByteLevel.alphabet()
    others = [byte for byte in range(256) if chr(byte) not in names]
    return {name: ord(name) if ord(name) < 256 else others[ord(name) - 256] for name in names}


BYTE_OF = _byte_of_names()


def kind_of(spec: dict[str, Any], unk: int | None) -> str:
    """char, word or byte for exactly what `lm/tokenization/vocabulary.py` creates, which is encoded without
    `tokenizers`; else the type of the model."""
    model, steps = spec["model"], spec.get("pre_tokenizer") or {}
    pattern, behavior = (steps.get("pattern") or {}).get("Regex"), steps.get("behavior")
    normalizer = spec.get("normalizer") or {}
    plain = all(token["special"] for token in spec.get("added_tokens") or [])
    if plain and model["type"] == "WordLevel" and unk is not None and not steps.get("invert"):
        if pattern == ONE_CHARACTER and behavior == "Isolated" and not normalizer:
            return "char"
        # Without this normalizer, the end of a line is not a token.
        if pattern == WHITESPACE and behavior == "Removed" and normalizer.get("content") == f" {EOS} ":
            return "word"
    byte_level = steps.get("type") == "ByteLevel" and not steps["add_prefix_space"]
    if plain and model["type"] == "BPE" and byte_level and not steps["use_regex"] and not model["merges"]:
        names = model["vocab"]
        if not normalizer and all(names.get(name) == byte for name, byte in BYTE_OF.items()):
            return "byte"
    return str(model["type"]).lower()
