"""Text to token ids and back; every kind is saved as a tokenizer.json of Hugging Face `tokenizers`.

char     a token per Unicode character of the training text
byte     a token per byte of UTF-8
bpe      pieces of words: byte-level byte-pair encoding (Sennrich et al. 2016)
unigram  pieces of words: a byte-level unigram language model (Kudo 2018)
word     a token per word, words being separated by whitespace; the end of a line is the token <eos>

byte, bpe and unigram represent any text and reproduce it exactly; so does char if it knows all characters.
`lm/tokenization/vocabulary.py` creates them. External tokenizers of any other kind are used as they are.

There are two special tokens: `<eos>` between documents and, for char and word, `<unk>` for what does not
occur in the training text. A text that contains "<eos>" literally is still text, except for word, where both
names are ordinary words: Penn Treebank and similar datasets contain them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend, pre_tokenizers
from tokenizers.decoders import DecodeStream

from lm.errors import ModelError, one_line
from lm.files import write_text
from lm.parallel import available_cores
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, chunks, is_ascii

EOS, UNK = "<eos>", "<unk>"
ONE_CHARACTER = r"[\s\S]"
# Whitespace as in str.split: the pattern's own class lacks the ASCII separators.
WHITESPACE = r"[\s\x1c-\x1f]+"
_CODE_POINTS = 0x110000
_CACHED_WORDS = 1 << 19  # words whose pieces are cached
# Looking words up is several times faster per core than merging their bytes (docs/benchmarks.md), but only
# one thread at a time can look up, while `tokenizers` merges on all cores: with this many, it wins.
_CORES_TO_MERGE = 5
_MAX_DESCRIBED = 8  # unknown characters or words named in a message
# How GPT-2's byte-level pre-tokenizer splits ASCII. Whitespace is spelled out because Python's class has a
# few more characters.
_ASCII_WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)


class Tokenizer:
    """A vocabulary and the rules that split text into it. Raises ModelError if there is no `<eos>`."""

    def __init__(self, backend: Backend):
        eos = backend.token_to_id(EOS)
        if eos is None:
            raise ModelError(f"the tokenizer has no {EOS} token, which separates documents.")
        self.backend = backend
        # Special tokens that are spelled out in a text are text, and long texts are not truncated.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.vocab_size: int = 1 + max(backend.get_vocab().values(), default=-1)
        self.eos: int = eos
        spec = json.loads(backend.to_str())
        model = spec["model"]
        self.kind = _kind(spec)
        self._byte_level = (spec.get("decoder") or {}).get("type") == "ByteLevel"
        self.unk: int | None = model.get("unk_id")
        if model.get("unk_token") is not None:
            self.unk = backend.token_to_id(model["unk_token"])

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json. Raises ModelError if it is missing or broken."""
        return cls(read_backend(path))

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json, which `tokenizers.Tokenizer.from_file` can load."""
        # Not backend.save, whose error does not say that the disk is full.
        write_text(path, self.backend.to_str(pretty=True))

    @property
    def end(self) -> int | None:
        """The token that ends a generated text: <eos>, unless that is the end of a line."""
        return None if self.kind == "word" else self.eos

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest type for all ids."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    def encode(self, text: str) -> np.ndarray:
        """Token ids (tokens,) of `text`; what the vocabulary lacks becomes `<unk>`."""
        text = self._with_known_line_ends(text)
        if self.kind == "char":
            return self._char_ids[_code_points(text)]
        return self.encode_bytes(text.encode("utf-8", "replace"))

    def encode_bytes(self, text: bytes) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR."""
        if self.kind == "char":
            return self._encode_characters(text)
        if self.kind == "byte":
            ids: np.ndarray = np.frombuffer(text, np.uint8).astype(self.dtype)
            ids[ids == SEPARATOR[0]] = self.eos
            return ids
        if self.kind == "word":
            return self._encode_words(text)
        return self._encode_pieces(text)

    def unknown_in(self, text: str) -> list[str]:
        """The distinct characters of `text` (for word, its words) that the vocabulary lacks, in order."""
        if self.unk is None:
            return []
        text = self._with_known_line_ends(text)
        parts = dict.fromkeys(text.split() if self.kind == "word" else text)
        if self.kind in ("char", "word"):
            return [part for part in parts if self.encode(part)[0] == self.unk and part != UNK]
        return [part for part in parts if self.unk in self.encode(part)]

    def count_unknown(self, ids: np.ndarray) -> int:
        """The number of `ids` (tokens,) that are `<unk>`."""
        return 0 if self.unk is None else int(np.count_nonzero(ids == self.unk))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens."""
        return self.backend.decode([i for i in map(int, ids) if i != self.end])

    def decode_stream(self, after: Iterable[int] = ()) -> TextStream:
        """A decoder that takes one id at a time; the first continues the text of `after`."""
        stream = TextStream(self)
        for token in after:  # some kinds write a space before each token but the first
            stream.step(int(token))
        return stream

    def bytes_of(self, token: int) -> bytes | None:
        """The UTF-8 of `token`, which may be part of a character; None for kinds where it depends on the
        tokens around it."""
        if self.kind != "char" and not self._byte_level:
            return None
        name = "" if token in self._special else self.backend.id_to_token(int(token)) or ""
        if self._byte_level and all(character in BYTE_OF for character in name):
            return bytes(BYTE_OF[character] for character in name)
        return name.encode()

    def token_name(self, token: int) -> str:
        """How to show a single token: its text, or its name if it has no text of its own."""
        text = self.decode([token])
        return text if text and "\ufffd" not in text else self.backend.id_to_token(int(token)) or ""

    def _with_known_line_ends(self, text: str) -> str:
        """Turn Windows line ends into "\\n" if the vocabulary lacks "\\r"."""
        unknown = self.kind == "char" and "\r\n" in text and self._char_ids[ord("\r")] == self.unk
        return text.replace("\r\n", "\n") if unknown else text

    def _encode_characters(self, text: bytes) -> np.ndarray:
        if self._ascii_ids is not None and is_ascii(text):
            return np.frombuffer(text.translate(self._ascii_ids), np.uint8).astype(self.dtype)
        return self._char_ids[_code_points(text.decode("utf-8", "surrogateescape"))]

    def _encode_words(self, text: bytes) -> np.ndarray:
        # A line end also separates documents, and a separator ends a last line that has none.
        lines = text.replace(b"\n" + SEPARATOR, b"\n").replace(SEPARATOR, b"\n").decode()
        words = lines.replace("\n", f" {EOS} ").split()
        return np.fromiter(map(self._word_ids.get, words, repeat(self.unk)), self.dtype, len(words))

    def _encode_pieces(self, text: bytes) -> np.ndarray:
        parts: list[str] = []
        ends = []
        for document in text.split(SEPARATOR):
            parts += (chunk.decode() for chunk in chunks(document))
            ends.append(len(parts))
        look_up = self._splits_like_gpt_2 and available_cores() < _CORES_TO_MERGE
        in_cache = [look_up and part.isascii() for part in parts]
        others = [part for part, cached in zip(parts, in_cache, strict=True) if not cached]
        encodings = iter(self.backend.encode_batch_fast(others, add_special_tokens=False))
        ids = [
            b"".join(map(self._pieces_of_words.__getitem__, _ASCII_WORDS.findall(part)))
            if cached
            else np.array(next(encodings).ids, self.dtype).tobytes()
            for part, cached in zip(parts, in_cache, strict=True)
        ]
        documents = (b"".join(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False))
        eos = np.array([self.eos], self.dtype).tobytes()
        return np.frombuffer(eos.join(documents), self.dtype)

    @cached_property
    def _splits_like_gpt_2(self) -> bool:
        """Whether _ASCII_WORDS finds the words, and nothing changes the text before."""
        spec = json.loads(self.backend.to_str())
        steps = spec.get("pre_tokenizer") or {}
        plain = steps.get("type") == "ByteLevel" and steps["use_regex"] and not steps["add_prefix_space"]
        return plain and not spec["normalizer"] and all(token["special"] for token in spec["added_tokens"])

    @cached_property
    def _pieces_of_words(self) -> _PiecesOfWords:
        return _PiecesOfWords(self.backend, self.dtype)

    @cached_property
    def _special(self) -> set[int]:
        return {i for i, added in self.backend.get_added_tokens_decoder().items() if added.special}

    @cached_property
    def _char_ids(self) -> np.ndarray:
        """The id of each code point."""
        table: np.ndarray = np.full(_CODE_POINTS, self.unk, self.dtype)
        for token, index in self.backend.get_vocab().items():
            if len(token) == 1:
                table[ord(token)] = index
        table[ord(SEPARATOR_CHARACTER)] = self.eos
        return table

    @cached_property
    def _ascii_ids(self) -> bytes | None:
        """The id of each ASCII byte and of SEPARATOR, if they fit into a byte: the fastest table."""
        ids = self._char_ids[:256].copy()
        ids[128:] = self.eos
        return ids.astype(np.uint8).tobytes() if ids.max() < 256 else None

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return self.backend.get_vocab()


class TextStream:
    """Decodes ids one at a time, without showing partial characters or lagging by more than one character.

    As in `decode`, U+FFFD replaces bytes that form no character.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._backend_stream = DecodeStream(skip_special_tokens=True)

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        if token == self._tokenizer.end:
            return self._characters.decode(b"", final=True)  # an incomplete character is never completed
        part = self._tokenizer.bytes_of(token)
        return self._backend_step(token) if part is None else self._characters.decode(part)

    def _backend_step(self, token: int) -> str:
        # The stream of `tokenizers` fails for good at bytes that form no character: start a new one.
        for _ in range(2):
            try:
                return self._backend_stream.step(self._tokenizer.backend, int(token)) or ""
            except Exception:  # it raises bare Exception
                self._backend_stream = DecodeStream(skip_special_tokens=True)
        return ""


class _PiecesOfWords(dict[str, bytes]):
    """word -> the ids of its pieces, as bytes.

    Words recur: looking them up takes a tenth of the time in which `tokenizers` splits and merges them.
    """

    def __init__(self, backend: Backend, dtype: type[np.uint16] | type[np.uint32]):
        self._backend, self._dtype = backend, dtype

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        ids = np.array(self._backend.encode(word, add_special_tokens=False).ids, self._dtype).tobytes()
        self[word] = ids
        return ids


def describe_unknown(tokenizer: Tokenizer, text: str) -> str:
    """The first characters or words of `text` that the vocabulary lacks, for a message: "'日', '本' …".
    Empty if it lacks none."""
    unknown = tokenizer.unknown_in(text)
    more = " …" if len(unknown) > _MAX_DESCRIBED else ""
    return ", ".join(map(repr, unknown[:_MAX_DESCRIBED])) + more


def read_backend(path: str | Path) -> Backend:
    """The tokenizer in a tokenizer.json. Raises ModelError if the file is missing or broken."""
    if not Path(path).is_file():
        raise ModelError(f"{path} is missing.")
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ModelError(f"{path} is not a readable tokenizer: {one_line(error)}") from error


def _kind(spec: dict[str, Any]) -> str:
    model, steps = spec["model"], spec.get("pre_tokenizer") or {}
    pattern = (steps.get("pattern") or {}).get("Regex")
    byte_level = steps.get("type") == "ByteLevel" and not steps["add_prefix_space"]
    if model["type"] == "WordLevel" and pattern == ONE_CHARACTER:
        return "char"
    if model["type"] == "WordLevel" and pattern == WHITESPACE:
        return "word"
    if model["type"] == "BPE" and byte_level and not steps["use_regex"] and not model["merges"]:
        return "byte"
    return model["type"].lower()


def _byte_of_names() -> dict[str, int]:
    """The byte of each character in the name of a byte-level token (GPT-2's table): printable ones are
    themselves, and those from 256 on are the other bytes in order."""
    names = pre_tokenizers.ByteLevel.alphabet()
    others = [byte for byte in range(256) if chr(byte) not in names]
    return {name: ord(name) if ord(name) < 256 else others[ord(name) - 256] for name in names}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


BYTE_OF = _byte_of_names()
