"""Text to token ids and back; every kind is saved as a tokenizer.json of Hugging Face `tokenizers`.

char     a token per Unicode character of the training text
byte     a token per byte of UTF-8
bpe      pieces of words: byte-level byte-pair encoding (Sennrich et al. 2016)
unigram  pieces of words: a byte-level unigram language model (Kudo 2018)
word     a token per word, words being separated by whitespace; the end of a line is the token <eos>

byte, bpe and unigram represent any text and reproduce it exactly; so does char if it knows all characters.
`lm/tokenization/vocabulary.py` creates them. External tokenizers of any other kind are used as they are.

There are two special tokens: `<eos>` between documents and, for char and word, `<unk>` for what does not
occur in the training text. External tokenizers may have an unknown token, too, under any name. A text that
contains "<eos>" literally is still text, unless the vocabulary has it as an ordinary piece. That of word has
both, because Penn Treebank and similar datasets contain them, and so have some external unigram tokenizers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend

from lm.errors import ModelError
from lm.files.atomic import write_text
from lm.tokenization.backend import decoding_error, read_backend, without_added_tokens
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER, is_ascii
from lm.tokenization.kinds import BYTE_OF, EOS, kind_of
from lm.tokenization.subwords import SubwordEncoder
from lm.tokenization.text_stream import TextStream

_CODE_POINTS = 0x110000
_BYTE_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # how SentencePiece names the token of a single byte
_MAX_DESCRIBED = 8  # unknown parts of a text named in a message


class Tokenizer:
    """A vocabulary and the rules that split text into it. Raises ModelError if there is no `<eos>`."""

    def __init__(self, backend: Backend):
        eos = backend.token_to_id(EOS)
        if eos is None:
            raise ModelError(f"the tokenizer has no {EOS} token, which separates documents.")
        spec = json.loads(backend.to_str())
        model = spec["model"]
        self.unk: int | None = model.get("unk_id")
        if model.get("unk_token") is not None:
            self.unk = backend.token_to_id(model["unk_token"])
        self.kind = kind_of(spec, self.unk)
        if self.kind == "word" and spec["added_tokens"]:
            # transformers saves <unk> and <eos> as special tokens, which decoding leaves out: a text would
            # lose its line breaks.
            added = (token for token in spec["added_tokens"] if token["content"] not in model["vocab"])
            backend = Backend.from_str(json.dumps(spec | {"added_tokens": list(added)}))
        self.backend = backend
        # Special tokens that are spelled out in a text are text, and long texts are not truncated.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.vocab_size: int = 1 + max(backend.get_vocab().values(), default=-1)
        self.eos: int = eos
        backend.post_processor = without_added_tokens(spec["post_processor"])
        self._byte_level = (spec.get("decoder") or {}).get("type") == "ByteLevel"
        self.subwords = SubwordEncoder(backend, spec, self.eos, self.dtype)

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

    def encode(self, text: str, *, skip_unknown: bool = False, continues: bool = False) -> np.ndarray:
        """Token ids (tokens,) of `text`; what the vocabulary lacks becomes `<unk>`, or is left out.

        `continues` is as for `encode_bytes`.
        """
        # Half of a character becomes "?": U+DCFF would otherwise be taken for a separator of documents.
        ids = self.encode_bytes(self._with_known_line_ends(text).encode("utf-8", "replace"), continues)
        if not skip_unknown:
            return ids
        return np.delete(ids, [index for index, _ in self._unknown(text, continues)])

    def encode_bytes(self, text: bytes, continues: bool = False) -> np.ndarray:
        """Token ids (tokens,) of valid UTF-8, with one `<eos>` for each SEPARATOR.

        `continues`: whether the text starts within a document, where no tokenizer puts a space before it.
        Raises DataError for a text with parts that an external tokenizer has no token for, not even an
        unknown token.
        """
        if self.kind == "char":
            return self._encode_characters(text)
        if self.kind == "byte":
            ids: np.ndarray = np.frombuffer(text, np.uint8).astype(self.dtype)
            ids[ids == SEPARATOR[0]] = self.eos
            return ids
        if self.kind == "word":
            return self._encode_words(text)
        return self.subwords.encode(text, continues)

    def unknown_in(
        self, text: str | bytes, limit: int | None = None, *, continues: bool = False
    ) -> list[str]:
        """The distinct parts of `text` that the vocabulary lacks, in order, at most `limit`.

        These are characters, for word its words, and otherwise what the tokenizer encodes as its unknown
        token. For word, a literal "<unk>" is not unknown. Text as bytes is UTF-8 with SEPARATOR between
        documents. `continues` is as for `encode_bytes`.
        """
        found: dict[str, None] = {}
        for _, part in self._unknown(text, continues):
            found[part] = None
            if len(found) == limit:
                break
        return list(found)

    def count_unknown(self, ids: np.ndarray) -> int:
        """The number of `ids` (tokens,) that are `<unk>`."""
        return 0 if self.unk is None else int(np.count_nonzero(ids == self.unk))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens. Raises ModelError if the decoder of an external
        tokenizer fails."""
        try:
            return self.backend.decode([i for i in map(int, ids) if i != self.end])
        except BaseException as error:
            raise decoding_error(error) from error

    def decode_stream(self, after: Iterable[int] = ()) -> TextStream:
        """A decoder that takes one id at a time; the first continues the text of `after`."""
        stream = TextStream(self.backend, self.end, self.bytes_of, self.token_name)
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
        part = self.bytes_of(token)
        if part is None:
            text = self.decode([token])
            if text and "\ufffd" not in text:
                return text
            part = self._fallback_byte(token)
        try:
            return part.decode() or self.backend.id_to_token(int(token)) or ""
        except UnicodeDecodeError:
            return "bytes:" + "".join(_visible_byte(byte) for byte in part)

    def added_by(self, token: int) -> bytes:
        """The UTF-8 that `token` adds to a text, which may be part of a character. Some kinds write a space
        before each word, but not before the first one of a text: see `hides_first_space`."""
        if (part := self.bytes_of(token)) is not None:
            return part
        alone, twice = self.decode([token]), self.decode([token, token])
        if "\ufffd" in alone and (byte := self._fallback_byte(token)):
            return byte
        return (twice[len(alone) :] if twice.startswith(alone) else alone).encode()

    @cached_property
    def hides_first_space(self) -> bool:
        """Whether the space that the first token of a text adds is not written."""
        return self.bytes_of(self.eos) is None and any(
            self.added_by(token).startswith(b" ") and not self.decode([token]).startswith(" ")
            for token in range(self.vocab_size)
        )

    def _fallback_byte(self, token: int) -> bytes:
        """The byte of a token such as `<0xE4>`, as SentencePiece names them; empty for other tokens."""
        named = _BYTE_FALLBACK.fullmatch(self.backend.id_to_token(int(token)) or "")
        return bytes.fromhex(named[1]) if named else b""

    def _unknown(self, text: str | bytes, continues: bool = False) -> Iterator[tuple[int, str]]:
        """The index of each unknown token of `text` and the part of the text that it replaces."""
        if self.unk is None:
            return
        text = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        if self.kind == "char":
            text = self._with_known_line_ends(text.decode("utf-8", "surrogateescape"))
            for index in np.flatnonzero(self._char_ids[_code_points(text)] == self.unk).tolist():
                yield index, text[index]
            return
        if self.kind == "word":
            yield from ((i, word) for i, word in enumerate(_words(text)) if word not in self._word_ids)
            return
        name, index = self.backend.id_to_token(self.unk), 0
        for document in text.split(SEPARATOR):
            for encoded, encoding in self.subwords.encoded_chunks(document, continues):
                chunk = encoded.decode()
                for number, (token, (start, end)) in enumerate(
                    zip(encoding.ids, encoding.offsets, strict=True), start=index
                ):
                    if token == self.unk and chunk[start:end] != name:
                        yield number, chunk[start:end]
                index += len(encoding.ids)
            index += 1  # the <eos> after it
            continues = False

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


def describe_unknown(tokenizer: Tokenizer, text: str | bytes) -> str:
    """The first parts of `text` that the vocabulary lacks (see `Tokenizer.unknown_in`), for a message:
    "'日', '本' …". Empty if it lacks none."""
    unknown = tokenizer.unknown_in(text, _MAX_DESCRIBED + 1)
    more = " …" if len(unknown) > _MAX_DESCRIBED else ""
    return ", ".join(map(repr, unknown[:_MAX_DESCRIBED])) + more


def _words(text: bytes) -> list[str]:
    """The words of a text, with EOS for the end of each line."""
    # A line end also separates documents, and a separator ends a last line that has none.
    lines = text.replace(b"\n" + SEPARATOR, b"\n").replace(SEPARATOR, b"\n").decode()
    return lines.replace("\n", f" {EOS} ").split()


def _visible_byte(byte: int) -> str:
    """A byte as in the literals of Python's `bytes`."""
    return chr(byte) if 0x20 <= byte < 0x7F and byte != ord("\\") else f"\\x{byte:02x}"


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
