"""Reads a tokenizer.json that anyone may have made, and rejects what `tokenizers` does not survive.

Some files make that library abort the process, allocate gigabytes, or compute for minutes, when it reads them
or when it later encodes a text (tokenizers 0.23). So each part is checked before the library sees it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.files.model_files import nested, parse_json, read_bytes

MAX_SIZE = 64 << 20  # bytes
_MAX_VALUES = 2_500_000  # strings, numbers, lists and objects
# The One Billion Word Benchmark has 793,471 different words.
_MAX_TOKENS = 1_000_000  # of the vocabulary; and the limit of merges
_MAX_ID = 1 << 24  # the library writes down each id that is missing below the largest one
_MAX_PARTS = 256  # components of a section, such as the normalizer
MAX_STRING = 4_000  # characters of a token, or of a pattern
_MAX_ADDED = 1_000_000  # characters of all added tokens
_MAX_GROWTH = 64  # how many times as long a text may become
_MAX_WORD = 1_000  # characters; WordPiece takes the square of that
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # or, in a damaged file, the rest of it
_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def read_spec(path: Path, folder: Path) -> dict[str, Any]:
    """The content of a tokenizer.json, a file in `folder`. Raises ModelError if it cannot be read or is too
    large, and ValueError if it is damaged or has something that no tokenizer needs."""
    content = read_bytes(path, folder, MAX_SIZE)
    if _values_in(content) > _MAX_VALUES and _values_in(_without_strings(content)) > _MAX_VALUES:
        raise ValueError(f"it has more than {_MAX_VALUES:,} values.")
    spec = parse_json(content)
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ValueError("it has no object 'model'.")
    for name in _SECTIONS:
        _check_section(name, spec.get(name))
    _check_added_tokens(spec.get("added_tokens") or [])
    _check_model(spec["model"])
    # Only for texts of several tokens at once, to which lm does not apply them.
    return {**spec, "padding": None, "truncation": None}


def _values_in(content: bytes) -> int:
    return sum(map(content.count, (b",", b"[", b"{")))


def _without_strings(content: bytes) -> bytes:
    """The content without words, which may contain commas and brackets, too. Of more than _MAX_VALUES pairs
    of a name and a value, strings remain."""
    return _STRING.sub(b"", content, count=2 * _MAX_VALUES)


def _check_section(name: str, section: Any) -> None:
    parts = list(_objects(section))
    if len(parts) > _MAX_PARTS:
        raise ValueError(f"its {name} has {len(parts)} parts; the limit is {_MAX_PARTS}.")
    growth = 1
    for part in parts:
        kind = part.get("type")
        for key, value in part.items():
            if isinstance(value, str) and len(value) > MAX_STRING and kind != "Precompiled":
                raise ValueError(f"'{key[:20]}' in its {name} has {len(value):,} characters.")
        if kind in ("Replace", "Prepend"):
            growth *= max(len(str(part.get("content") or part.get("prepend") or "")), 1)
        if kind == "ByteLevel":
            growth *= 2
        if kind == "FixedLength" and part.get("length") == 0:
            raise ValueError(f"its {name} splits a text into parts of length 0.")
        if kind == "Precompiled":
            _check_precompiled(part.get("precompiled_charsmap"))
    if growth > _MAX_GROWTH:
        raise ValueError(f"its {name} makes a text {growth:,} times as long; the limit is {_MAX_GROWTH}.")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a value, whose depth `parse_json` has limited."""
    if isinstance(value, dict):
        yield value
    for child in nested(value):
        yield from _objects(child)


def _check_precompiled(charsmap: Any) -> None:
    """The size of a trie in bytes, the trie, and the strings to which its entries lead."""
    try:
        decoded = base64.b64decode(charsmap, validate=True)
    except (TypeError, ValueError, binascii.Error):
        decoded = b""
    size = int.from_bytes(decoded[:4], "little")
    if len(decoded) < 8 or size % 4 or not 4 <= size <= len(decoded) - 4:
        raise ValueError("its precompiled_charsmap is damaged.")


def _check_added_tokens(added: Any) -> None:
    contents = [token.get("content") for token in added if isinstance(token, dict)] if added else []
    if sum(len(content) for content in contents if isinstance(content, str)) > _MAX_ADDED:
        raise ValueError(f"its added tokens have more than {_MAX_ADDED:,} characters.")


def _check_model(model: dict[str, Any]) -> None:
    vocab, merges = model.get("vocab") or (), model.get("merges") or ()
    for name, entries in (("tokens", vocab), ("merges", merges)):
        if len(entries) > _MAX_TOKENS:
            raise ValueError(f"it has {len(entries):,} {name}; the limit is {_MAX_TOKENS:,}.")
    ids = vocab.values() if isinstance(vocab, dict) else ()
    if (largest := max((id for id in ids if isinstance(id, int)), default=0)) > _MAX_ID:
        raise ValueError(f"it has an id of {largest:,}; ids count tokens from 0.")
    tokens = vocab if isinstance(vocab, dict) else (entry[0] for entry in vocab if entry)
    if any(isinstance(token, str) and len(token) > MAX_STRING for token in tokens):
        raise ValueError(f"it has a token of more than {MAX_STRING:,} characters.")
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > _MAX_WORD:
        raise ValueError(f"max_input_chars_per_word is {longest:,}; the limit is {_MAX_WORD:,}.")
    prefix = model.get("continuing_subword_prefix")
    for merge in merges if prefix else ():
        # The library cuts off as many bytes, whatever they are.
        second = merge.split(" ")[-1] if isinstance(merge, str) else merge[-1] if merge else ""
        if not str(second).startswith(str(prefix)):
            raise ValueError(f"a merge does not continue with '{str(prefix)[:20]}'.")
