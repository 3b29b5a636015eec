"""The token stream: each split as one flat, memory-mapped array of token ids.

Made once and kept in a cache folder, so that the next run on the same text starts at once:

    <cache>/<key>/tokenizer.json
                  train.tokens        uint16 or uint32, the documents one after the other,
                  validation.tokens   one <eos> between each two
                  info.json           for each split: tokens, characters, bytes, documents, unknown

The key is a hash of the text itself and of all settings that shape the stream.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from lm.config import DataConfig
from lm.data.sources import Source, find_source
from lm.errors import DataError, UserError
from lm.files import write_text
from lm.tokenizer import Tokenizer, train_tokenizer

FORMAT = 1
_CHARACTERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Counts:
    """How large a split is."""

    tokens: int  # the <eos> between documents included
    characters: int
    bytes: int  # of the text as UTF-8
    documents: int
    unknown: int  # tokens that are <unk>


@dataclass(frozen=True)
class Split:
    """One split's tokens (tokens,) uint16 or uint32, mapped from disk, and their counts."""

    tokens: np.ndarray
    counts: Counts


@dataclass(frozen=True)
class Corpus:
    """A text ready to train on."""

    name: str
    key: str
    tokenizer: Tokenizer
    train: Split
    validation: Split


def cache_folder() -> Path:
    """$LM_CACHE, or a folder of ours in the user's cache directory."""
    if "LM_CACHE" in os.environ:
        return Path(os.environ["LM_CACHE"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "lm"


def open_corpus(config: DataConfig, report: Callable[[str], None] = lambda line: None) -> Corpus:
    """Find the text and map its token stream, making it first if this is the first time.

    `report` is told, in one line each, what takes time. Raises UserError for text that cannot be
    read or is too small to learn from.
    """
    source = find_source(config)
    key = _key(source, config)
    folder = cache_folder() / key
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # two processes make it once
            if not folder.is_dir():
                _make(source, config, folder, report)
    return cached_corpus(key)


def cached_corpus(key: str) -> Corpus | None:
    """The token stream that was made under `key`, or None. Needs the text itself no more."""
    folder = cache_folder() / key
    if not folder.is_dir():
        return None
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    info = json.loads((folder / "info.json").read_text())
    train, validation = (
        Split(np.memmap(folder / f"{name}.tokens", _dtype(tokenizer), mode="r"), Counts(**info[name]))
        for name in ("train", "validation")
    )
    return Corpus(key.rpartition("-")[0], key, tokenizer, train, validation)


def _key(source: Source, config: DataConfig) -> str:
    shaping = asdict(config)
    shaping.pop("dataset")  # the same text under another path is the same stream
    if config.tokenizer == "char":
        shaping.pop("vocab_size")
    text = json.dumps([FORMAT, source.identity, shaping], sort_keys=True)
    return f"{source.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _make(source: Source, config: DataConfig, folder: Path, report: Callable[[str], None]) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        report(f"Reading {source.name} …")
        train, validation = _splits(source, config)
        tokenizer = train_tokenizer(config.tokenizer, train(), config.vocab_size)
        _check_vocabulary(tokenizer, source, config)
        tokenizer.save(partial / "tokenizer.json")
        info = {}
        for name, documents in (("train", train), ("validation", validation)):
            report(f"Turning the {name} text into tokens …")
            counts = _write_tokens(partial / f"{name}.tokens", documents(), tokenizer)
            if counts.tokens < 2:
                raise DataError(
                    f"the {name} text of {source.name} has only {counts.tokens} token(s); at least 2"
                    " are needed to predict one from the other: give more text."
                )
            info[name] = asdict(counts)
        write_text(partial / "info.json", json.dumps(info, indent=2))
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _splits(source: Source, config: DataConfig) -> tuple[Callable[[], Iterator[str]], ...]:
    """Functions that yield the documents of the training and the validation text."""

    def documents(split: str) -> Callable[[], Iterator[str]]:
        return lambda: _characters(source.documents(split), 0, config.max_chars or sys.maxsize)

    train, wanted = documents(config.train_split), config.validation_split
    fraction = _as_fraction(wanted)
    if fraction is None and (wanted or "validation" in source.splits):
        return train, documents(wanted or "validation")
    total = sum(len(document) for document in train())
    if total < 2:
        what = "is empty" if total == 0 else "has only one character"
        raise DataError(f"{source.name} {what}: there is nothing to learn from it.")
    cut = math.floor(total * (0.9 if fraction is None else 1 - fraction))
    return (lambda: _characters(train(), 0, cut)), (lambda: _characters(train(), cut, total))


def _as_fraction(text: str | None) -> float | None:
    try:
        fraction = float(text)
    except (TypeError, ValueError):
        return None
    if not 0 < fraction < 1:
        raise UserError(f"--validation-split must be a split's name or lie between 0 and 1, not {text}.")
    return fraction


def _characters(documents: Iterator[str], start: int, stop: int) -> Iterator[str]:
    """The part of the text from character `start` to `stop`, counted through all documents."""
    position = 0
    for document in documents:
        piece = document[max(start - position, 0) : max(stop - position, 0)]
        position += len(document)
        if piece:
            yield piece
        if position >= stop:
            return


def _write_tokens(path: Path, documents: Iterator[str], tokenizer: Tokenizer) -> Counts:
    dtype = _dtype(tokenizer)
    separator = np.array([tokenizer.eos], dtype)
    tokens = characters = size = count = unknown = 0
    with open(path, "wb") as file:
        for batch in _batches(documents):
            for ids in tokenizer.encode_batch(batch):
                if count:
                    separator.tofile(file)
                    tokens += 1
                ids.astype(dtype).tofile(file)
                tokens += len(ids)
                count += 1
                if tokenizer.unk is not None:
                    unknown += int(np.count_nonzero(ids == tokenizer.unk))
            characters += sum(map(len, batch))
            size += sum(len(document.encode()) for document in batch)
    return Counts(tokens, characters, size, count, unknown)


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    """Group documents until a group holds about a million characters."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _check_vocabulary(tokenizer: Tokenizer, source: Source, config: DataConfig) -> None:
    types = [t for t in tokenizer.backend.get_vocab() if t not in ("<eos>", "<unk>")]
    if config.tokenizer == "char" and len(types) < 2:
        what = f"only one distinct character, {types[0]!r}" if types else "nothing"
        raise DataError(f"the training text of {source.name} holds {what}: give more text.")


def _dtype(tokenizer: Tokenizer) -> type:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
