"""The tokenizer of a text: learned from its training split, and compared with the text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, pairwise

from lm.config.schema import DataConfig
from lm.console.progress import ProgressCallback
from lm.data.survey import LISTED
from lm.data.text import Text, blocks_of
from lm.errors import DataError
from lm.tokenization import vocabulary
from lm.tokenization.documents import CHUNK, LONGEST, SEPARATOR, chunks
from lm.tokenization.tokenizer import Tokenizer

_LEARNED_FROM = 100 << 20  # bytes of text from which bpe and unigram are learned
_DECODED = 16 << 20  # bytes of text with which it is checked whether a tokenizer reproduces text


def learn_tokenizer(
    config: DataConfig, texts: list[Text], characters: dict[str, int], progress: ProgressCallback
) -> Tokenizer:
    """The tokenizer of a text with these counts of `characters`. Raises DataError if there is too little to
    learn from, or if no token is left."""
    kind, size, min_frequency = config.tokenizer, config.vocab_size, config.min_frequency
    if not characters:
        raise DataError(
            "no text is left to train on: choose a smaller --validation-split or --test-split, or use more"
            " text."
        )
    if kind == "char":  # counted already
        if len(characters) < 2:
            only = next(iter(characters))
            raise DataError(f"the training text has only one distinct character, {only!r}: use more text.")
        return _not_empty(vocabulary.char_tokenizer(characters, size, min_frequency), config)
    # Evenly spaced samples of a long text are enough to learn pieces of words.
    every = 1 if kind == "word" else 1 + sum(map(len, texts)) // _LEARNED_FROM
    blocks = blocks_of(texts, f"Learning the {kind} vocabulary", progress, kind)
    sample = (block for number, block in enumerate(blocks) if number % every == 0)
    pieces = (document for block in sample for document in block.split(SEPARATOR))
    if kind != "word":
        # The time in which bpe learns grows with the square of the longest word.
        longest = CHUNK if kind == "bpe" else LONGEST
        pieces = (chunk for document in pieces for chunk in chunks(document, CHUNK, longest))
    return _not_empty(
        vocabulary.train_tokenizer(kind, map(bytes.decode, pieces), size, min_frequency), config
    )


def _not_empty(tokenizer: Tokenizer, config: DataConfig) -> Tokenizer:
    """Raise DataError if the vocabulary has no tokens that text consists of."""
    if {tokenizer.unk, tokenizer.eos} >= set(range(tokenizer.vocab_size)):
        if config.vocab_size:
            raise DataError("the vocabulary has no tokens for this text: choose a larger --vocab-size.")
        raise DataError("the vocabulary has no tokens for this text: choose a smaller --min-frequency.")
    return tokenizer


def unknown_parts(tokenizer: Tokenizer, blocks: Iterable[bytes]) -> list[str]:
    """The first distinct parts of a text that the vocabulary lacks."""
    found: dict[str, None] = {}
    for before, block in pairwise(chain([SEPARATOR], blocks)):
        continues = not before.endswith(SEPARATOR)
        found |= dict.fromkeys(tokenizer.unknown_in(block, LISTED, continues=continues))
        if len(found) >= LISTED:
            break
    return list(found)[:LISTED]


def is_exact(tokenizer: Tokenizer, texts: list[Text], progress: ProgressCallback) -> bool:
    """Whether the tokens of each document reproduce it; of a long text, of evenly spaced parts of it."""
    every = 1 + sum(map(len, texts)) // _DECODED
    for number, block in enumerate(blocks_of(texts, "Checking the tokenizer", progress)):
        if number % every == 0:
            # Some tokenizers add or drop a space at the start of a text, so parts start with a word here.
            part = block.lstrip() if number else block
            documents = [document.decode() for document in part.split(SEPARATOR)]
            if any(tokenizer.decode(tokenizer.encode(document)) != document for document in documents):
                return False
    return True
