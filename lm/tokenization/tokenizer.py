"""Text to token ids and back; every kind is saved as one tokenizer.json of Hugging Face `tokenizers`.

char     one token per Unicode character of the training text
byte     one token per byte of UTF-8
bpe      pieces of words: byte-level byte-pair encoding (Sennrich et al. 2016)
unigram  pieces of words: a byte-level unigram language model (Kudo 2018)
word     what stands between white space; the end of a line is the token <eos>

byte, bpe and unigram know every text and give it back exactly; so does char where it knows all
characters. `lm/tokenization/vocabulary.py` makes them; a ready one of any other make is read as it is.

Two tokens stand beside the text's own: `<eos>` between documents and, for char and word, `<unk>`
for what the training text lacks. Text that happens to contain "<eos>" is still text, except in
word, where both names are words like others: so they are written in Penn Treebank and its kin.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend, pre_tokenizers
from tokenizers.decoders import DecodeStream

from lm.errors import ModelError, one_line
from lm.files import write_text

EOS, UNK = "<eos>", "<unk>"
# Between documents of a text as bytes stands one that UTF-8 never contains.
SEPARATOR = b"\xff"
ONE_CHARACTER = r"[\s\S]"
# White space as str.split sees it: the separators of ASCII are not in the pattern's own class.
WHITE_SPACE = r"[\s\x1c-\x1f]+"
_CODE_POINTS = 0x110000
PIECE = 1 << 14  # bytes that `tokenizers` gets at a time
_MOST_WORDS = 1 << 19  # that are remembered with their pieces
# A core looks words up several times as fast as it merges their bytes (docs/benchmarks.md), but only
# one at a time looks up, while `tokenizers` merges on all of them.
_CORES_THAT_MERGE = 5
_MAX_DESCRIBED = 8  # unknown characters or words named in a message
# What GPT-2's byte-level pre-tokenizer cuts ASCII into. White space is written out, because that of
# Python has some characters more.
_ASCII_WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)


class Tokenizer:
    """A vocabulary and the rules to cut text into it."""

    def __init__(self, backend: Backend):
        self.backend = backend
        # Special tokens written out in the text are text, and a text is as long as it is.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.vocab_size: int = 1 + max(backend.get_vocab().values(), default=-1)
        eos = backend.token_to_id(EOS)
        if eos is None:
            raise ModelError(f"the tokenizer has no {EOS} token, which separates documents.")
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
        """Write a tokenizer.json that `tokenizers.Tokenizer.from_file` loads."""
        # Not backend.save, whose error does not tell that the disk is full.
        write_text(path, self.backend.to_str(pretty=True))

    @property
    def end(self) -> int | None:
        """The token with which a model ends its text: <eos>, unless that is the end of a line."""
        return None if self.kind == "word" else self.eos

    @property
    def dtype(self) -> type:
        """The smallest type that holds every id: uint16 or uint32."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    def encode(self, text: str) -> np.ndarray:
        """Token ids (tokens,) of `text`; what is not known becomes `<unk>`."""
        text = self._with_known_line_ends(text)
        if self.kind == "char":
            return self._char_ids[_code_points(text)]
        return self.encode_bytes(text.encode("utf-8", "replace"))

    def encode_bytes(self, text: bytes) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR."""
        if self.kind == "char":
            return self._encode_characters(text)
        if self.kind == "byte":
            ids = np.frombuffer(text, np.uint8).astype(self.dtype)
            ids[ids == SEPARATOR[0]] = self.eos
            return ids
        if self.kind == "word":
            return self._encode_words(text)
        return self._encode_pieces(text)

    def unknown_in(self, text: str) -> list[str]:
        """The characters of `text` that the vocabulary lacks, or its words if it is one of words;
        each once, in order."""
        if self.unk is None:
            return []
        text = self._with_known_line_ends(text)
        parts = dict.fromkeys(text.split() if self.kind == "word" else text)
        if self.kind in ("char", "word"):
            return [part for part in parts if self.encode(part)[0] == self.unk and part != UNK]
        return [part for part in parts if self.unk in self.encode(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without the tokens that stand for no text."""
        return self.backend.decode([i for i in map(int, ids) if i != self.end])

    def decode_stream(self, after: Iterable[int] = ()) -> TextStream:
        """A decoder that takes one id at a time, the first of them following `after`."""
        stream = TextStream(self)
        for token in after:  # some kinds write a space before a token, but not before the first
            stream.step(int(token))
        return stream

    def bytes_of(self, token: int) -> bytes | None:
        """The UTF-8 that `token` stands for, which may be part of a character; None for kinds where
        it depends on the tokens beside it."""
        if self.kind != "char" and not self._byte_level:
            return None
        name = "" if token in self._special else self.backend.id_to_token(int(token)) or ""
        if self._byte_level and all(character in BYTE_OF for character in name):
            return bytes(BYTE_OF[character] for character in name)
        return name.encode()

    def token_name(self, token: int) -> str:
        """What to show for one token: its text, or its name where it has none by itself."""
        text = self.decode([token])
        return text if text and "\ufffd" not in text else self.backend.id_to_token(int(token))

    def _with_known_line_ends(self, text: str) -> str:
        """Line ends of Windows are those of everyone else to a model that has never seen them."""
        unknown = self.kind == "char" and "\r\n" in text and self._char_ids[ord("\r")] == self.unk
        return text.replace("\r\n", "\n") if unknown else text

    def _encode_characters(self, text: bytes) -> np.ndarray:
        if self._ascii_ids is not None and is_ascii(text):
            return np.frombuffer(text.translate(self._ascii_ids), np.uint8).astype(self.dtype)
        # The separator becomes a lone surrogate, which no text contains.
        return self._char_ids[_code_points(text.decode("utf-8", "surrogateescape"))]

    def _encode_words(self, text: bytes) -> np.ndarray:
        # A line's end separates documents too, and ends the last line of one that lacks it.
        lines = text.replace(b"\n" + SEPARATOR, b"\n").replace(SEPARATOR, b"\n").decode()
        words = lines.replace("\n", f" {EOS} ").split()
        return np.fromiter(map(self._word_ids.get, words, repeat(self.unk)), self.dtype, len(words))

    def _encode_pieces(self, text: bytes) -> np.ndarray:
        pieces, ends = [], []
        for document in text.split(SEPARATOR):
            pieces += (piece.decode() for piece in cut(document, PIECE))
            ends.append(len(pieces))
        look_up = self._cuts_as_gpt_2 and available_cores() < _CORES_THAT_MERGE
        plain = [look_up and piece.isascii() for piece in pieces]
        others = [piece for piece, is_plain in zip(pieces, plain, strict=True) if not is_plain]
        encodings = iter(self.backend.encode_batch_fast(others, add_special_tokens=False))
        ids = [
            b"".join(map(self._pieces_of_words.__getitem__, _ASCII_WORDS.findall(piece)))
            if is_plain
            else np.array(next(encodings).ids, self.dtype).tobytes()
            for piece, is_plain in zip(pieces, plain, strict=True)
        ]
        documents = (b"".join(ids[begin:end]) for begin, end in zip([0, *ends], ends, strict=False))
        eos = np.array([self.eos], self.dtype).tobytes()
        return np.frombuffer(eos.join(documents), self.dtype)

    @cached_property
    def _cuts_as_gpt_2(self) -> bool:
        """Whether words are what _ASCII_WORDS finds, and nothing is changed before."""
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
        table = np.full(_CODE_POINTS, self.unk, self.dtype)
        for token, index in self.backend.get_vocab().items():
            if len(token) == 1:
                table[ord(token)] = index
        table[ord(SEPARATOR.decode("utf-8", "surrogateescape"))] = self.eos
        return table

    @cached_property
    def _ascii_ids(self) -> bytes | None:
        """For each byte of ASCII and SEPARATOR its id, if all of them are small: the fastest table."""
        ids = self._char_ids[:256].copy()
        ids[128:] = self.eos
        return ids.astype(np.uint8).tobytes() if ids.max() < 256 else None

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return self.backend.get_vocab()


class TextStream:
    """Turns ids into text one at a time, never shows half a character and never waits for more than
    one: U+FFFD stands for bytes that are none, as in `decode`."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._others = DecodeStream(skip_special_tokens=True)

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        if token == self._tokenizer.end:
            return self._characters.decode(b"", final=True)  # what was begun stays half a character
        part = self._tokenizer.bytes_of(token)
        return self._step_of_others(token) if part is None else self._characters.decode(part)

    def _step_of_others(self, token: int) -> str:
        # The decoder of `tokenizers` gives up where bytes turn out to be no character: begin anew.
        for _ in range(2):
            try:
                return self._others.step(self._tokenizer.backend, int(token)) or ""
            except Exception:  # it raises bare Exception
                self._others = DecodeStream(skip_special_tokens=True)
        return ""


class _PiecesOfWords(dict[str, bytes]):
    """The ids of the pieces of each word, as bytes. Words come again and again: looked up here,
    they cost a tenth of what `tokenizers` takes to cut and merge them anew."""

    def __init__(self, backend: Backend, dtype: type):
        self._backend, self._dtype = backend, dtype

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _MOST_WORDS:
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
    """What a tokenizer.json holds. Raises ModelError if it is missing or broken."""
    if not Path(path).is_file():
        raise ModelError(f"{path} is missing.")
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ModelError(f"{path} is not a tokenizer that can be read: {one_line(error)}") from error


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_ascii(text: bytes) -> bool:
    """Whether all characters of a text are ASCII; separators do not count."""
    return int(np.count_nonzero(np.frombuffer(text, np.int8) < 0)) == text.count(SEPARATOR)


def cut(text: bytes, size: int) -> Iterator[bytes]:
    """Cut UTF-8 into pieces of about `size` bytes, each before a space after a word, where no
    tokenizer joins; where there is none, between two characters."""
    begin = 0
    while len(text) - begin > size:
        end = begin + safe_cut(text[begin : begin + size])
        yield text[begin:end]
        begin = end
    yield text[begin:]


def safe_cut(text: bytes) -> int:
    """The last place in the second half of `text` where it may be cut; see `cut`."""
    place = len(text)
    while (place := text.rfind(b" ", max(len(text) // 2, 1), place)) > 0:
        if not text[place - 1 : place].isspace() and text[place - 1] != SEPARATOR[0]:
            return place
    place = len(text) - 1
    while place > 0 and text[place] & 0xC0 == 0x80:
        place -= 1
    return place or len(text)


def _kind(spec: dict) -> str:
    model, steps = spec["model"], spec.get("pre_tokenizer") or {}
    pattern = (steps.get("pattern") or {}).get("Regex")
    byte_level = steps.get("type") == "ByteLevel" and not steps["add_prefix_space"]
    if model["type"] == "WordLevel" and pattern == ONE_CHARACTER:
        return "char"
    if model["type"] == "WordLevel" and pattern == WHITE_SPACE:
        return "word"
    if model["type"] == "BPE" and byte_level and not steps["use_regex"] and not model["merges"]:
        return "byte"
    return model["type"].lower()


def byte_of_names() -> dict[str, int]:
    """Which byte each character of a byte-level token stands for (GPT-2's table): printable ones
    for themselves, those from 256 on for the other bytes in order."""
    names = pre_tokenizers.ByteLevel.alphabet()
    others = [byte for byte in range(256) if chr(byte) not in names]
    return {name: ord(name) if ord(name) < 256 else others[ord(name) - 256] for name in names}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


BYTE_OF = byte_of_names()
