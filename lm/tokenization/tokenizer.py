"""Text to token ids and back; every kind is saved as a tokenizer.json of Hugging Face `tokenizers`.

char     a token per Unicode character of the training text
byte     a token per byte of UTF-8
bpe      pieces of words: byte-level byte-pair encoding (Sennrich et al. 2016)
unigram  pieces of words: a byte-level unigram language model (Kudo 2018)
word     a token per word, words being separated by whitespace; the end of a line is the token <eos>

byte, bpe and unigram represent any text and reproduce it exactly; so does char if it knows all characters.
`lm/tokenization/vocabulary.py` creates them. External tokenizers of any other kind are used as they are.

There are two special tokens: `<eos>` between documents and, for char and word, `<unk>` for what does not
occur in the training text. External tokenizers may have a token for the unknown, too, under any name. A text
that contains "<eos>" literally is still text, except for word, where both names are ordinary words: Penn
Treebank and similar datasets contain them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer as Backend, pre_tokenizers
from tokenizers.decoders import DecodeStream

from lm.errors import DataError, ModelError, UserError, one_line
from lm.files import write_text
from lm.parallel import available_cores
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, chunks, is_ascii
from lm.tokenization.untrusted import read_spec

EOS, UNK = "<eos>", "<unk>"
ONE_CHARACTER = r"[\s\S]"
# Whitespace as in str.split: the pattern's own class lacks the ASCII separators.
WHITESPACE = r"[\s\x1c-\x1f]+"
_CODE_POINTS = 0x110000
_CACHED_WORDS = 1 << 19  # words whose pieces are cached
# Looking words up is several times faster per core than merging their bytes (docs/benchmarks.md), but only
# one thread at a time can look up, while `tokenizers` merges on all cores: with this many, it wins.
_CORES_TO_MERGE = 5
_BYTE_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # how SentencePiece names the token of a single byte
_MAX_VOCAB = 1 << 24
_MAX_DESCRIBED = 8  # unknown parts of a text named in a message
# How GPT-2's byte-level pre-tokenizer splits ASCII. Whitespace is spelled out because Python's class has a
# few more characters.
_ASCII_WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)


class Tokenizer:
    """A vocabulary and the rules that split text into it. Raises ModelError if there is no `<eos>`, or if
    the id of a token is out of range."""

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
        if self.vocab_size > _MAX_VOCAB:
            raise ModelError(f"the tokenizer has an id of {self.vocab_size - 1:,}; ids count tokens from 0.")
        self.eos: int = eos
        spec = json.loads(backend.to_str())
        model = spec["model"]
        self._byte_level = (spec.get("decoder") or {}).get("type") == "ByteLevel"
        self.unk: int | None = model.get("unk_id")
        if model.get("unk_token") is not None:
            self.unk = backend.token_to_id(model["unk_token"])
        self.kind = _kind(spec, self.unk)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json. Raises ModelError if it is missing or broken."""
        return cls(read_backend(Path(path), Path(path).parent))

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

    def encode(self, text: str, *, skip_unknown: bool = False) -> np.ndarray:
        """Token ids (tokens,) of `text`; what the vocabulary lacks becomes `<unk>`, or is left out."""
        line_ends_known = self._with_known_line_ends(text)
        if self.kind == "char":
            ids = self._char_ids[_code_points(line_ends_known)]
        else:
            ids = self.encode_bytes(line_ends_known.encode("utf-8", "replace"))
        return np.delete(ids, [index for index, _ in self._unknown(text)]) if skip_unknown else ids

    def encode_bytes(self, text: bytes) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR.

        Raises DataError for a text with parts that an external tokenizer has no token for, not even one for
        the unknown.
        """
        if self.kind == "char":
            return self._encode_characters(text)
        if self.kind == "byte":
            ids: np.ndarray = np.frombuffer(text, np.uint8).astype(self.dtype)
            ids[ids == SEPARATOR[0]] = self.eos
            return ids
        if self.kind == "word":
            return self._encode_words(text)
        return self._encode_pieces(text)

    def unknown_in(self, text: str | bytes, limit: int | None = None) -> list[str]:
        """The distinct parts of `text` that the vocabulary lacks, in order, at most `limit`.

        These are characters, for word its words, and otherwise what the tokenizer encodes as its unknown
        token. A literal "<unk>" in a text of words is no unknown word. Text as bytes is UTF-8 with SEPARATOR
        between documents.
        """
        found: dict[str, None] = {}
        for _, part in self._unknown(text):
            found[part] = None
            if len(found) == limit:
                break
        return list(found)

    def count_unknown(self, ids: np.ndarray) -> int:
        """The number of `ids` (tokens,) that are `<unk>`."""
        return 0 if self.unk is None else int(np.count_nonzero(ids == self.unk))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens."""
        try:
            return self.backend.decode([i for i in map(int, ids) if i != self.end])
        except BaseException as error:
            _raise_unless_backend(error)
            raise ModelError(f"the tokenizer cannot decode its tokens: {one_line(error)}") from error

    def decode_stream(self, after: Iterable[int] = ()) -> TextStream:
        """A decoder that takes one id at a time; the first continues the text of `after`."""
        stream = TextStream(self)
        for token in after:  # some kinds write a space before each token but the first
            stream.step(int(token))
        stream.length = stream.offset = 0
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
        """How to show a single token: its text, or its name if it has no text of its own.

        A token that is not made of whole characters is shown as in OpenAI's API: `bytes:\\xe4`.
        """
        part, name = self.bytes_of(token), self.backend.id_to_token(int(token)) or ""
        if part is None:
            text = self.decode([token])
            if text and "\ufffd" not in text:
                return text
            fallback = _BYTE_FALLBACK.fullmatch(name)
            part = bytes.fromhex(fallback[1]) if fallback else b""
        try:
            return part.decode() or name
        except UnicodeDecodeError:
            return "bytes:" + "".join(_visible_byte(byte) for byte in part)

    def _unknown(self, text: str | bytes) -> Iterator[tuple[int, str]]:
        """The index of each unknown token of `text` and the part of the text that it replaces."""
        if self.unk is None:
            return
        if self.kind == "char":
            text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
            text = self._with_known_line_ends(text)
            for index in np.flatnonzero(self._char_ids[_code_points(text)] == self.unk).tolist():
                yield index, text[index]
            return
        text = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        if self.kind == "word":
            yield from ((i, word) for i, word in enumerate(_words(text)) if word not in self._word_ids)
            return
        name, index = self.backend.id_to_token(self.unk), 0
        for document in text.split(SEPARATOR):
            for chunk in map(bytes.decode, chunks(document)):
                encoding = self._encode_batch([chunk], offsets=True)[0]
                for number, (token, (start, end)) in enumerate(
                    zip(encoding.ids, encoding.offsets, strict=True), start=index
                ):
                    if token == self.unk and chunk[start:end] != name:
                        yield number, chunk[start:end]
                index += len(encoding.ids)
            index += 1  # the <eos> after it

    def _encode_batch(self, texts: list[str], offsets: bool = False) -> list[Encoding]:
        encode = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        try:
            return encode(texts, add_special_tokens=False)
        except BaseException as error:
            _raise_unless_backend(error)
            if not isinstance(error, Exception):
                raise DataError(
                    f"the tokenizer fails on this text ({one_line(error)}): choose another model."
                ) from error
            raise DataError(
                f"the tokenizer has no token for a part of this text ({one_line(error)}): add an unknown"
                " token to its vocabulary or choose another tokenizer."
            ) from error

    def _with_known_line_ends(self, text: str) -> str:
        """Turn Windows line ends into "\\n" if the vocabulary lacks "\\r"."""
        unknown = self.kind == "char" and "\r\n" in text and self._char_ids[ord("\r")] == self.unk
        return text.replace("\r\n", "\n") if unknown else text

    def _encode_characters(self, text: bytes) -> np.ndarray:
        if self._ascii_ids is not None and is_ascii(text):
            return np.frombuffer(text.translate(self._ascii_ids), np.uint8).astype(self.dtype)
        return self._char_ids[_code_points(text.decode("utf-8", "surrogateescape"))]

    def _encode_words(self, text: bytes) -> np.ndarray:
        words = _words(text)
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
        encodings = iter(self._encode_batch(others))
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
        return _PiecesOfWords(self._encode_batch, self.dtype)

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

    As in `decode`, U+FFFD replaces bytes that form no character. `length` is the number of characters so far,
    and `offset` the position among them of the latest token: of its character, even if that is incomplete.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._backend_stream = DecodeStream(skip_special_tokens=True)
        self.length = self.offset = 0

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self.offset = self.length
        if token == self._tokenizer.end:
            text = self.rest()
            self.offset += len(text)
        elif (part := self._tokenizer.bytes_of(token)) is None:
            text = self._backend_step(token)
            # Some kinds write a space before each word that is no part of the token.
            self.offset += text.startswith(" ") and not self._tokenizer.token_name(token).startswith(" ")
        else:
            text = self._characters.decode(part[:1])
            # The first byte belongs to the last character decoded so far, or to one that is incomplete.
            incomplete = bool(self._characters.getstate()[0]) or not part
            self.offset += len(text) - (not incomplete)
            text += self._characters.decode(part[1:])
        self.length += len(text)
        return text

    def rest(self) -> str:
        """What replaces an incomplete character that is never completed."""
        return self._characters.decode(b"", final=True)

    def _backend_step(self, token: int) -> str:
        # The stream of `tokenizers` fails for good at bytes that form no character: start a new one.
        for _ in range(2):
            try:
                return self._backend_stream.step(self._tokenizer.backend, int(token)) or ""
            except Exception:  # it raises bare Exception
                self._backend_stream = DecodeStream(skip_special_tokens=True)
            except BaseException as error:
                _raise_unless_backend(error)
                raise ModelError(f"the tokenizer cannot decode its tokens: {one_line(error)}") from error
        return ""


class _PiecesOfWords(dict[str, bytes]):
    """word -> the ids of its pieces, as bytes.

    Words recur: looking them up takes a tenth of the time in which `tokenizers` splits and merges them.
    """

    def __init__(
        self, encode: Callable[[list[str]], list[Encoding]], dtype: type[np.uint16] | type[np.uint32]
    ):
        self._encode, self._dtype = encode, dtype

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        ids = np.array(self._encode([word])[0].ids, self._dtype).tobytes()
        self[word] = ids
        return ids


def describe_unknown(tokenizer: Tokenizer, text: str | bytes) -> str:
    """The first parts of `text` that the vocabulary lacks (see `Tokenizer.unknown_in`), for a message:
    "'日', '本' …". Empty if it lacks none."""
    unknown = tokenizer.unknown_in(text, _MAX_DESCRIBED + 1)
    more = " …" if len(unknown) > _MAX_DESCRIBED else ""
    return ", ".join(map(repr, unknown[:_MAX_DESCRIBED])) + more


def read_backend(path: Path, folder: Path) -> Backend:
    """The tokenizer in a tokenizer.json, which must be a file in `folder`. Raises ModelError if it is missing
    or broken."""
    try:
        return Backend.from_buffer(json.dumps(read_spec(path, folder)).encode())
    except UserError:
        raise
    except BaseException as error:
        _raise_unless_backend(error)
        raise ModelError(f"{path} is not a readable tokenizer: {one_line(error)}") from error


def _raise_unless_backend(error: BaseException) -> None:
    """Raise `error` unless it is one of `tokenizers`, which raises bare Exception, and PanicException, which
    is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _kind(spec: dict[str, Any], unk: int | None) -> str:
    """char, word or byte for exactly what `lm/tokenization/vocabulary.py` creates, which is encoded without
    `tokenizers`; else the type of the model."""
    model, steps = spec["model"], spec.get("pre_tokenizer") or {}
    pattern, behavior = (steps.get("pattern") or {}).get("Regex"), steps.get("behavior")
    normalizer = spec.get("normalizer") or {}
    plain = all(token["special"] for token in spec.get("added_tokens") or [])
    if plain and model["type"] == "WordLevel" and unk is not None and not steps.get("invert"):
        if pattern == ONE_CHARACTER and behavior == "Isolated" and not normalizer:
            return "char"
        # Without this normalizer, the end of a line is no token.
        if pattern == WHITESPACE and behavior == "Removed" and normalizer.get("content") == f" {EOS} ":
            return "word"
    byte_level = steps.get("type") == "ByteLevel" and not steps["add_prefix_space"]
    if plain and model["type"] == "BPE" and byte_level and not steps["use_regex"] and not model["merges"]:
        names = model["vocab"]
        if not normalizer and all(names.get(name) == byte for name, byte in BYTE_OF.items()):
            return "byte"
    return str(model["type"]).lower()


def _words(text: bytes) -> list[str]:
    """The words of a text, with EOS for the end of each line."""
    # A line end also separates documents, and a separator ends a last line that has none.
    lines = text.replace(b"\n" + SEPARATOR, b"\n").replace(SEPARATOR, b"\n").decode()
    return lines.replace("\n", f" {EOS} ").split()


def _visible_byte(byte: int) -> str:
    """A byte as in the literals of Python's `bytes`."""
    return chr(byte) if 0x20 <= byte < 0x7F and byte != ord("\\") else f"\\x{byte:02x}"


def _byte_of_names() -> dict[str, int]:
    """The byte of each character in the name of a byte-level token (GPT-2's table): printable ones are
    themselves, and those from 256 on are the other bytes in order."""
    names = pre_tokenizers.ByteLevel.alphabet()
    others = [byte for byte in range(256) if chr(byte) not in names]
    return {name: ord(name) if ord(name) < 256 else others[ord(name) - 256] for name in names}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


BYTE_OF = _byte_of_names()
