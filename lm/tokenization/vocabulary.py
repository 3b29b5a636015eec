"""Where vocabularies come from: one function for each kind of tokenizer.

Two look at what the text consists of, {character: count} or {word: count}, two learn pieces from
samples of it, one needs nothing and one reads what others made.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer as Backend, decoders, models, normalizers, pre_tokenizers, trainers

from lm.errors import DataError, UserError, one_line
from lm.tokenization.tokenizer import BYTE_OF, EOS, ONE_CHARACTER, UNK, WHITE_SPACE, Tokenizer, read_backend

KINDS = ("char", "byte", "bpe", "unigram", "word")
_PIECES = 4096  # types of bpe and unigram
_WORDS = 1 << 16  # types of word, which still fit into two bytes each
_BYTES = pre_tokenizers.ByteLevel.alphabet()
_MOST_WORDS = 1 << 20  # that are counted at a time


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int | None = None, min_frequency: int = 1
) -> Tokenizer:
    """The tokenizer of a kind for `texts`. Without a `vocab_size`: 4096 pieces for bpe and unigram,
    65536 words, all characters. Raises UserError for settings that leave nothing to learn."""
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
    """One token for each character of `counts`, in the order of their code points; the rarest ones
    are left out if there are more than `vocab_size` with <unk> and <eos>."""
    kept = sorted(_commonest(counts, vocab_size, min_frequency))
    backend = Backend(models.WordLevel(_numbered([UNK, EOS, *kept]), unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(ONE_CHARACTER), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)


def byte_tokenizer() -> Tokenizer:
    """256 tokens, each with its byte as its id, and <eos>."""
    in_order = sorted(BYTE_OF, key=BYTE_OF.__getitem__)
    backend = Backend(models.BPE(_numbered([*in_order, EOS]), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int | None = None, min_frequency: int = 1) -> Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016) of `vocab_size` types, <eos> and the 256
    bytes among them. Raises UserError if that leaves nothing to learn."""
    size = _room_for_pieces("bpe", vocab_size)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=[EOS],
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    return _learned(Backend(models.BPE()), trainer, texts)


def unigram_tokenizer(texts: Iterable[str], vocab_size: int | None = None) -> Tokenizer:
    """A unigram language model over pieces (Kudo 2018) of bytes: `vocab_size` types, <eos> and the
    256 bytes among them. Raises UserError if that leaves nothing to learn."""
    size = _room_for_pieces("unigram", vocab_size)
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[EOS], initial_alphabet=_BYTES, show_progress=False
    )
    return _learned(Backend(models.Unigram()), trainer, texts)


def word_tokenizer(
    counts: Mapping[str, int], vocab_size: int | None = None, min_frequency: int = 1
) -> Tokenizer:
    """One token for each word of `counts`, the commonest first, and <eos> for the end of a line."""
    words = {word: count for word, count in counts.items() if word not in (UNK, EOS)}
    kept = _commonest(words, vocab_size or _WORDS, min_frequency)
    backend = Backend(models.WordLevel(_numbered([UNK, EOS, *kept]), unk_token=UNK))
    backend.normalizer = normalizers.Replace("\n", f" {EOS} ")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WHITE_SPACE), behavior="removed")
    # A space before every word; no word begins with the prefix that would glue it to the last one.
    apart = decoders.WordPiece(prefix=" ", cleanup=False)
    line_end = decoders.Replace(Regex(f" ?{EOS} ?"), "\n")
    backend.decoder = decoders.Sequence([apart, decoders.Fuse(), line_end])
    return Tokenizer(backend)


def ready_tokenizer(name: str) -> tuple[Tokenizer, str]:
    """The tokenizer.json in the file, the folder or the Hub model `name`, given an <eos> if it has
    none, and a hash of it. Raises UserError if there is none, ModelError if it is broken."""
    path = Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        if path.suffix == ".json" or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            raise UserError(f"there is no tokenizer file '{name}'.")
        from lm.data.hub import tokenizer_file  # it imports much

        try:
            path = Path(tokenizer_file(name))
        except UserError as error:
            kinds = ", ".join(KINDS)
            raise UserError(f"--tokenizer is {kinds}, a tokenizer.json or a Hub model: {error}") from error
    backend = read_backend(path)
    if backend.token_to_id(EOS) is None:
        backend.add_special_tokens([EOS])
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size < 3:
        raise UserError(f"the tokenizer '{name}' knows no token.")
    return tokenizer, hashlib.sha256(path.read_bytes()).hexdigest()


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs. Of a text with more than a million different words the rarest
    are forgotten now and then, so that memory does not grow with the text."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
        if len(counts) > _MOST_WORDS:
            counts = Counter(dict(counts.most_common(_MOST_WORDS // 2)))
    return counts


def _commonest(counts: Mapping[str, int], vocab_size: int | None, min_frequency: int) -> list[str]:
    """The types that are frequent enough, the commonest first, as many as fit beside <unk> and <eos>."""
    ranked = sorted(counts, key=lambda part: (-counts[part], part))
    frequent = [part for part in ranked if counts[part] >= min_frequency]
    return frequent if vocab_size is None else frequent[: vocab_size - 2]


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _room_for_pieces(kind: str, vocab_size: int | None) -> int:
    size = _PIECES if vocab_size is None else vocab_size
    if size <= len(_BYTES) + 1:
        raise UserError(
            f"--vocab-size {size} is too small for {kind}: its {len(_BYTES)} bytes and {EOS} alone"
            f" take {len(_BYTES) + 1}."
        )
    return size


def _learned(backend: Backend, trainer: trainers.Trainer, texts: Iterable[str]) -> Tokenizer:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    try:
        backend.train_from_iterator(texts, trainer)
    except (UserError, OSError):
        raise
    except Exception as error:  # `tokenizers` raises bare Exception
        raise DataError(f"no vocabulary could be learned from this text: {one_line(error)}") from error
    return Tokenizer(backend)
