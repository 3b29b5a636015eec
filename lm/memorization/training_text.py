"""Find the text that a model was trained on: its token stream in the cache, or Python's library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lm.config.schema import DataConfig
from lm.data.cache import cache_folder, entries, mark_used
from lm.data.compression import without_compression
from lm.data.corpus import Corpus, read_corpus
from lm.data.find_source import find_source
from lm.errors import DataError, UserError
from lm.files.atomic import folder_or_previous
from lm.files.model_files import read_json
from lm.memorization.search import BREAK, Blocks
from lm.storage.run_folder import Run, progress_values
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.tokenizer import Tokenizer

_BLOCK = 1 << 16  # tokens, or characters of the library
_OVERLAP = 128  # of them: at least 31 characters, because a character has at most four tokens
_COUNTS = ("tokens", "characters", "documents")


class DecodedText:
    """A token stream as text, decoded on the fly; see `lm.memorization.search.Blocks`.

    Unknown tokens become `BREAK`. Whitespace is as the model writes it, because word tokens do not record how
    many spaces the original had.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: np.ndarray, block: int = _BLOCK):
        self._tokenizer, self._tokens, self._block = tokenizer, tokens, block
        parts = [tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size)]
        for token in (tokenizer.eos, tokenizer.unk):
            if token is not None:
                parts[token] = BREAK.encode()
        self._parts = None if None in parts else np.array(parts, object)

    def __len__(self) -> int:
        return -(-len(self._tokens) // self._block)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self._tokens), self._block):
            yield self._decode(self._tokens[max(begin - _OVERLAP, 0) : begin + self._block])

    def _decode(self, tokens: np.ndarray) -> str:
        if self._parts is not None:
            return b"".join(self._parts[tokens]).decode("utf-8", "ignore")  # an end may cut a character
        # The text of a token depends on those around it. (The <eos> of words, a line break, is no `end`.)
        tokenizer = self._tokenizer
        documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.end))
        text = BREAK.join(tokenizer.decode(ids.tolist()) for ids in documents)
        return text if tokenizer.unk is None else text.replace(tokenizer.token_name(tokenizer.unk), BREAK)


def find_training_text(folder: Path) -> Blocks:
    """The training text of the run or saved model in `folder`; nothing is downloaded.

    Raises UserError if the text is not available.
    """
    trained_on = read_json(folder / "config.json", folder).get("trained_on")
    if not isinstance(trained_on, dict) or not isinstance(trained_on.get("dataset"), str):
        raise UserError(f"{folder} does not say what it was trained on.")
    corpus = _find_cached(folder, trained_on)
    if corpus:
        return DecodedText(corpus.tokenizer, corpus.train.tokens)
    if trained_on["dataset"] == "python":
        return _python_library(trained_on)
    raise DataError(
        f"the training text of {folder}, {trained_on['dataset']}, is not in the cache {cache_folder()}, where"
        " training stores it (except with --streaming): train on it again on this machine."
    )


def _find_cached(folder: Path, trained_on: dict[str, Any]) -> Corpus | None:
    """The cached token stream with the counts and the tokenizer of a model, under the key in its checkpoint
    or, as saved models have none, under a name that fits the dataset."""
    key, tokenizer = _key_of_run(folder), Tokenizer.load(folder / "tokenizer.json")
    files = [Path(without_compression(part)).name for part in trained_on["dataset"].split(" + ")]
    names = {"+".join(files)[:80], "+".join(Path(file).stem for file in files)[:80]}
    for entry in entries():
        name = entry.path.name
        if name != key and name.rpartition("-")[0] not in names:
            continue
        try:
            corpus = read_corpus(name)
        except (OSError, ValueError, KeyError, TypeError, UserError):  # unfinished or damaged
            continue
        if corpus.tokenizer.backend.to_str() == tokenizer.backend.to_str() and all(
            getattr(corpus.train.counts, count) == trained_on.get(count) for count in _COUNTS
        ):
            mark_used(entry.path)
            return corpus
    return None


def _key_of_run(folder: Path) -> str | None:
    """The cache key of the token stream that a run's checkpoint reads."""
    checkpoint = folder_or_previous(Run(folder).checkpoint)
    try:
        return progress_values(checkpoint).get("corpus") if checkpoint else None
    except UserError:
        return None


def _python_library(trained_on: dict[str, Any]) -> list[str]:
    """The standard library of this Python, cut to the length of the text that a model was trained on."""
    pieces = find_source("python", DataConfig()).read("train")
    text = b"".join(pieces).replace(SEPARATOR, BREAK.encode()).decode()
    characters, documents = trained_on.get("characters"), trained_on.get("documents")
    if isinstance(characters, int) and isinstance(documents, int):
        text = text[: characters + documents - 1]
    return [text[max(begin - _OVERLAP, 0) : begin + _BLOCK] for begin in range(0, len(text), _BLOCK)]
