"""Encodes text into pieces of words with `tokenizers`, with a cache of words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from lm.parallel import available_cores
from lm.tokenization.backend import encode_batch
from lm.tokenization.documents import SEPARATOR, chunks

_CACHED_WORDS = 1 << 19  # words whose pieces are cached
# Looking words up is several times faster per core than merging their bytes (docs/benchmarks.md), but only
# one thread at a time can look up, while `tokenizers` merges on all cores: with this many, it wins.
_CORES_TO_MERGE = 5
# How GPT-2's byte-level pre-tokenizer splits ASCII. Whitespace is spelled out because Python's class has a
# few more characters.
_ASCII_WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)


class PieceEncoder:
    """Encodes text with `backend`, whose tokenizer.json is `spec`."""

    def __init__(
        self, backend: Backend, spec: dict[str, Any], eos: int, dtype: type[np.uint16] | type[np.uint32]
    ):
        self._backend, self._eos, self._dtype = backend, eos, dtype
        self._pieces_of_words = _PiecesOfWords(backend, dtype)
        self.splits_like_gpt_2 = _splits_like_gpt_2(spec)

    def encode(self, text: bytes) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR."""
        parts: list[str] = []
        ends = []
        for document in text.split(SEPARATOR):
            parts += (chunk.decode() for chunk in chunks(document))
            ends.append(len(parts))
        look_up = self.splits_like_gpt_2 and available_cores() < _CORES_TO_MERGE
        in_cache = [look_up and part.isascii() for part in parts]
        others = [part for part, cached in zip(parts, in_cache, strict=True) if not cached]
        encodings = iter(encode_batch(self._backend, others))
        ids = [
            b"".join(map(self._pieces_of_words.__getitem__, _ASCII_WORDS.findall(part)))
            if cached
            else np.array(next(encodings).ids, self._dtype).tobytes()
            for part, cached in zip(parts, in_cache, strict=True)
        ]
        documents = (b"".join(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False))
        eos = np.array([self._eos], self._dtype).tobytes()
        return np.frombuffer(eos.join(documents), self._dtype)


class _PiecesOfWords(dict[str, bytes]):
    """word -> the ids of its pieces, as bytes.

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
