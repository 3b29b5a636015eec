"""Encodes text into subwords with `tokenizers`, with a cache of words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer as Backend

from lm.parallel import available_cores
from lm.tokenization.backend import encode_batch
from lm.tokenization.documents import SEPARATOR, chunks

_CACHED_WORDS = 1 << 19  # words whose subwords are cached
# Looking words up is several times faster per core than merging their bytes (docs/benchmarks.md), but only
# one thread at a time can look up, while `tokenizers` merges on all cores: with this many, it wins.
_CORES_TO_MERGE = 5
# How GPT-2's byte-level pre-tokenizer splits ASCII. Whitespace is spelled out because Python's class has a
# few more characters.
_ASCII_WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)
# Settings that add or remove a space at the start of a text, with their values within a document.
_WITHIN = {"add_prefix_space": False, "prepend_scheme": "never", "strip_left": False}


class SubwordEncoder:
    """Encodes text with `backend`, whose tokenizer.json is `spec`.

    `start_differs`: whether the tokens at the start of a document may differ from those of the same text
    within one.
    """

    def __init__(
        self, backend: Backend, spec: dict[str, Any], eos: int, dtype: type[np.uint16] | type[np.uint32]
    ):
        self._backend, self._eos, self._dtype = backend, eos, dtype
        self._cached = _CachedWords(backend, dtype)
        self.splits_like_gpt_2 = _splits_like_gpt_2(spec)
        within = _within_documents(spec)
        self.start_differs = within is not None
        self._backend_within = backend if within is None else _backend_of(within)

    def encode(self, text: bytes, continues: bool = False) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR.

        `continues`: whether the text starts within a document.
        """
        parts: list[tuple[str, Backend | None]] = []  # None: the words are looked up
        ends = []
        look_up = self.splits_like_gpt_2 and available_cores() < _CORES_TO_MERGE
        for document in text.split(SEPARATOR):
            for chunk in chunks(document):
                part, backend = chunk.decode(), self._backend_within if continues else self._backend
                parts.append((part, None if look_up and part.isascii() else backend))
                continues = True
            ends.append(len(parts))
            continues = False
        encodings = {
            backend: iter(encode_batch(backend, [part for part, chosen in parts if chosen is backend]))
            for backend in {self._backend, self._backend_within}
        }
        ids = [
            b"".join(map(self._cached.__getitem__, _ASCII_WORDS.findall(part)))
            if backend is None
            else np.array(next(encodings[backend]).ids, self._dtype).tobytes()
            for part, backend in parts
        ]
        documents = (b"".join(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False))
        eos = np.array([self._eos], self._dtype).tobytes()
        return np.frombuffer(eos.join(documents), self._dtype)

    def encoded_chunks(self, document: bytes, continues: bool = False) -> Iterator[tuple[bytes, Encoding]]:
        """The chunks that `encode` encodes, each with its tokens and their positions in it."""
        for chunk in chunks(document):
            backend = self._backend_within if continues else self._untrimmed
            yield chunk, encode_batch(backend, [chunk.decode()], offsets=True)[0]
            continues = True

    @cached_property
    def _untrimmed(self) -> Backend:
        """The backend without its post-processor, which may trim spaces from the spans of tokens: the span of
        a token of only spaces would be empty, and in the next word or after the text."""
        backend = self._backend
        return backend if backend.post_processor is None else _backend_of(json.loads(backend.to_str()))


class _CachedWords(dict[str, bytes]):
    """word -> the ids of its subwords, as bytes.

    Words recur: looking them up takes a tenth of the time in which `tokenizers` splits and merges them.
    """

    def __init__(self, backend: Backend, dtype: type[np.uint16] | type[np.uint32]):
        self._backend, self._dtype = backend, dtype

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        ids = np.array(encode_batch(self._backend, [word])[0].ids, self._dtype).tobytes()
        self[word] = ids
        return ids


def _splits_like_gpt_2(spec: dict[str, Any]) -> bool:
    """Whether _ASCII_WORDS finds the words, and nothing changes the text before."""
    steps = spec.get("pre_tokenizer") or {}
    plain = steps.get("type") == "ByteLevel" and steps["use_regex"] and not steps["add_prefix_space"]
    return plain and not spec["normalizer"] and all(token["special"] for token in spec["added_tokens"])


def _within_documents(spec: dict[str, Any]) -> dict[str, Any] | None:
    """The tokenizer.json for text that starts within a document, without the steps that put a space before a
    text or remove one there; None if there is no such step.

    Some tokenizers also put such a space after each added token that is not special. They keep doing that
    only at the start of a document.
    """
    normalizers, splitters = _steps(spec["normalizer"]), _steps(spec["pre_tokenizer"])
    normalizers_within = [_within(step) for step in normalizers if step["type"] != "Prepend"]
    # Only the first splitter, because later ones may put spaces between words.
    splitters_within = [*map(_within, splitters[:1]), *splitters[1:]]
    if (normalizers_within, splitters_within) == (normalizers, splitters):
        return None
    return spec | {
        "normalizer": {"type": "Sequence", "normalizers": normalizers_within},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters_within},
    }


def _within(step: dict[str, Any]) -> dict[str, Any]:
    return step | {name: value for name, value in _WITHIN.items() if name in step}


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, which may be a sequence."""
    if part is None:
        return []
    name = {"normalizers", "pretokenizers"} & part.keys()
    return part[name.pop()] if name else [part]


def _backend_of(spec: dict[str, Any]) -> Backend:
    """A backend that encodes as that of `Tokenizer` does, without a post-processor."""
    backend = Backend.from_str(json.dumps(spec | {"post_processor": None}))
    backend.encode_special_tokens = True
    return backend
