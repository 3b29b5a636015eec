"""Text to token ids and back; every kind is saved as one tokenizer.json of Hugging Face `tokenizers`.

char  one token per Unicode character of the training text
bpe   byte-level byte-pair encoding (Sennrich et al. 2016), so that no text is ever unknown

Two tokens stand beside the text's own: `<eos>` between documents and, for `char`, `<unk>` for a
character that the training text lacks. Text that happens to contain "<eos>" is still text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer as Backend, decoders, models, pre_tokenizers, trainers
from tokenizers.decoders import DecodeStream

from lm.errors import ModelError, UserError
from lm.files import replacing

EOS, UNK = "<eos>", "<unk>"
_ONE_CHARACTER = r"[\s\S]"
_CODE_POINTS = 0x110000


class Tokenizer:
    """A vocabulary and the rules to cut text into it."""

    def __init__(self, backend: Backend):
        self.backend = backend
        # Special tokens written out in the text are text.
        backend.encode_special_tokens = True
        self.vocab_size: int = backend.get_vocab_size()
        self.eos: int | None = backend.token_to_id(EOS)
        self.unk: int | None = backend.token_to_id(UNK)
        if self.eos is None:
            raise ModelError(f"the tokenizer has no {EOS} token, which separates documents.")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json. Raises ModelError if it is missing or broken."""
        if not Path(path).is_file():
            raise ModelError(f"{path} is missing.")
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ModelError(f"{path} is not a tokenizer that can be read: {error}") from error
        return cls(backend)

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that `tokenizers.Tokenizer.from_file` loads."""
        with replacing(path) as partial:
            self.backend.save(str(partial))

    @cached_property
    def kind(self) -> str:
        """'char', 'bpe' or the name that `tokenizers` has for the model inside."""
        spec = json.loads(self.backend.to_str())
        pattern = (spec.get("pre_tokenizer") or {}).get("pattern")
        if spec["model"]["type"] == "WordLevel" and pattern == {"Regex": _ONE_CHARACTER}:
            return "char"
        return spec["model"]["type"].lower()

    def encode(self, text: str) -> np.ndarray:
        """Token ids (tokens,) uint32 of `text`; a character that is not known becomes `<unk>`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Token ids of each text; see `encode`."""
        if self.kind == "char":
            return [self._ids_of_code_points[_code_points(text)] for text in texts]
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def unknown_in(self, text: str) -> list[str]:
        """The characters of `text` that the vocabulary lacks, each once, in order."""
        if self.kind != "char":
            return []
        return [c for c in dict.fromkeys(text) if self.encode(c)[0] == self.unk]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without the tokens that stand for no text."""
        return self.backend.decode([i for i in map(int, ids) if i != self.eos])

    def decode_stream(self) -> TextStream:
        """A decoder that takes one id at a time."""
        return TextStream(self)

    def token_name(self, token: int) -> str:
        """What to show for one token: its text, or its name where it has none by itself."""
        text = self.decode([token])
        return text if text and "\ufffd" not in text else self.backend.id_to_token(int(token))

    @cached_property
    def _ids_of_code_points(self) -> np.ndarray:
        table = np.full(_CODE_POINTS, self.unk, dtype=np.uint32)
        for token, index in self.backend.get_vocab().items():
            if len(token) == 1:
                table[ord(token)] = index
        return table


class TextStream:
    """Turns ids into text one at a time and never shows half a character."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        if token == self._tokenizer.eos:
            return ""
        return self._stream.step(self._tokenizer.backend, int(token)) or ""


def train_tokenizer(kind: str, documents: Iterator[str], vocab_size: int) -> Tokenizer:
    """Learn the vocabulary of `documents`. `vocab_size` is for bpe and counts all its tokens."""
    return _train_char(documents) if kind == "char" else _train_bpe(documents, vocab_size)


def _train_char(documents: Iterator[str]) -> Tokenizer:
    characters: set[str] = set()
    for document in documents:
        characters.update(document)
    vocabulary = {token: i for i, token in enumerate([UNK, EOS, *sorted(characters)])}
    backend = Backend(models.WordLevel(vocabulary, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_ONE_CHARACTER), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)


def _train_bpe(documents: Iterator[str], vocab_size: int) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise UserError(
            f"--vocab-size {vocab_size} is too small for bpe: its {len(alphabet)} bytes and"
            f" {EOS} alone take {len(alphabet) + 1}."
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return Tokenizer(backend)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
