"""Creates the vocabulary of each kind of tokenizer.

char and word take the counts of characters or words, bpe and unigram learn pieces from samples of the text,
byte needs no text, and an external tokenizer is read from a file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer as Backend, decoders, models, normalizers, pre_tokenizers, trainers

from lm.errors import DataError, UserError, one_line
from lm.tokenization.backend import read_backend
from lm.tokenization.kinds import BYTE_OF, EOS, ONE_CHARACTER, UNK, WHITESPACE
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.tokenizer_json import MAX_STRING

KINDS = ("char", "byte", "bpe", "unigram", "word")
_PIECES = 4096  # default vocabulary size of bpe and unigram
_WORDS = 1 << 16  # default vocabulary size of word: the largest whose ids take two bytes


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int | None = None, min_frequency: int = 1
) -> Tokenizer:
    """A tokenizer of one of KINDS for `texts`.

    The default `vocab_size` is 4096 for bpe and unigram, 65536 for word and unlimited for char. Raises
    UserError if the settings leave nothing to learn.
    """
    if kind == "char":
        return char_tokenizer(Counter(chain.from_iterable(texts)), vocab_size, min_frequency)
    if kind == "byte":
        return byte_tokenizer()
    if kind == "bpe":
        return bpe_tokenizer(texts, vocab_size, min_frequency)
    if kind == "unigram":
        return unigram_tokenizer(texts, vocab_size)
    return word_tokenizer(count_words(texts), vocab_size, min_frequency)


def char_tokenizer(
    counts: Mapping[str, int], vocab_size: int | None = None, min_frequency: int = 1
) -> Tokenizer:
    """One token for each character of `counts`, ordered by code point.

    Of more than `vocab_size`, <unk> and <eos> included, the least common are left out.
    """
    characters = sorted(_most_common(counts, vocab_size, min_frequency))
    backend = Backend(models.WordLevel(_numbered([UNK, EOS, *characters]), unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(ONE_CHARACTER), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)


def byte_tokenizer() -> Tokenizer:
    """256 tokens, each byte being its own id, and <eos>."""
    names = sorted(BYTE_OF, key=BYTE_OF.__getitem__)
    backend = Backend(models.BPE(_numbered([*names, EOS]), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int | None = None, min_frequency: int = 1) -> Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016).

    `vocab_size` includes <eos> and the 256 bytes; raises UserError unless it is larger than that.
    """
    trainer = trainers.BpeTrainer(
        vocab_size=_piece_count("bpe", vocab_size),
        min_frequency=min_frequency,
        special_tokens=[EOS],
        initial_alphabet=list(BYTE_OF),
        max_token_length=MAX_STRING,
        show_progress=False,
    )
    return _learn(Backend(models.BPE()), trainer, texts)


def unigram_tokenizer(texts: Iterable[str], vocab_size: int | None = None) -> Tokenizer:
    """A byte-level unigram language model over pieces (Kudo 2018).

    `vocab_size` includes <eos> and the 256 bytes; raises UserError unless it is larger than that.
    """
    trainer = trainers.UnigramTrainer(
        vocab_size=_piece_count("unigram", vocab_size),
        special_tokens=[EOS],
        initial_alphabet=list(BYTE_OF),
        show_progress=False,
    )
    return _learn(Backend(models.Unigram()), trainer, texts)


def word_tokenizer(
    counts: Mapping[str, int], vocab_size: int | None = None, min_frequency: int = 1
) -> Tokenizer:
    """One token for each word of `counts`, most common first, and <eos> for the end of a line. Words of more
    than MAX_STRING characters, which no tokenizer.json may have, are left out."""
    words = {word: n for word, n in counts.items() if word not in (UNK, EOS) and len(word) <= MAX_STRING}
    chosen = _most_common(words, vocab_size or _WORDS, min_frequency)
    backend = Backend(models.WordLevel(_numbered([UNK, EOS, *chosen]), unk_token=UNK))
    backend.normalizer = normalizers.Replace("\n", f" {EOS} ")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WHITESPACE), behavior="removed")
    # A space before every word: no word starts with the prefix that would join it to the word before it.
    spaces = decoders.WordPiece(prefix=" ", cleanup=False)
    line_ends = decoders.Replace(Regex(f" ?{EOS} ?"), "\n")
    backend.decoder = decoders.Sequence([spaces, decoders.Fuse(), line_ends])
    return Tokenizer(backend)


def load_external(path: Path) -> tuple[Tokenizer, str]:
    """The tokenizer in any tokenizer.json, with <eos> added if it has none, and a hash of the file.

    One that splits the text without removing anything but has no decoder, such as a WordLevel of atoms, gets
    one that joins the tokens again: without it, `tokenizers` puts spaces between them.

    Raises ModelError if the file is broken, UserError if its vocabulary is empty.
    """
    backend = read_backend(path, path.resolve().parent)  # a link that the user has named is followed
    if backend.token_to_id(EOS) is None:
        backend.add_special_tokens([EOS])
    if _splits_only(json.loads(backend.to_str())):
        backend.decoder = decoders.Fuse()
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size < 3:
        raise UserError(f"the vocabulary of the tokenizer {path} is empty.")
    return tokenizer, hashlib.sha256(path.read_bytes()).hexdigest()


def _splits_only(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer has no decoder and its tokens are parts of the text that leave nothing out."""
    model, splitter = spec["model"], spec.get("pre_tokenizer") or {"type": "Sequence", "pretokenizers": []}
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    marks = (model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    return (
        spec.get("decoder") is None
        and all(step["type"] == "Split" and step["behavior"] != "Removed" for step in steps)
        and not any(marks)
    )


def count_words(texts: Iterable[str], limit: int = 1 << 20) -> Counter[str]:
    """The count of each word.

    Whenever there are more than `limit` distinct words, the least common are dropped until half the limit is
    left, so that memory does not grow with the text.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
        if len(counts) > limit:
            counts = Counter(dict(counts.most_common(limit // 2)))
    return counts


def _most_common(counts: Mapping[str, int], vocab_size: int | None, min_frequency: int) -> list[str]:
    """The types with at least `min_frequency`, most common first, as many as fit next to <unk> and <eos>."""
    ranked = sorted(counts, key=lambda part: (-counts[part], part))
    frequent = [part for part in ranked if counts[part] >= min_frequency]
    return frequent if vocab_size is None else frequent[: vocab_size - 2]


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _piece_count(kind: str, vocab_size: int | None) -> int:
    size = _PIECES if vocab_size is None else vocab_size
    if size <= len(BYTE_OF) + 1:
        raise UserError(
            f"--vocab-size {size} is too small for {kind}: the {len(BYTE_OF)} bytes and {EOS} alone take"
            f" {len(BYTE_OF) + 1}."
        )
    return size


def _learn(backend: Backend, trainer: trainers.Trainer, texts: Iterable[str]) -> Tokenizer:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    try:
        backend.train_from_iterator(texts, trainer)
    except (UserError, OSError):
        raise
    except Exception as error:  # `tokenizers` raises bare Exception
        raise DataError(f"no vocabulary can be learned from this text: {one_line(error)}") from error
    return Tokenizer(backend)
