"""The token stream: each split of a text as one flat array of token ids, mapped from disk.

It is made once and kept in the cache folder, so that the next run on the same text starts at once:

    <cache>/<key>/tokenizer.json
                  train.tokens        uint16 or uint32, the documents one after the other,
                  validation.tokens   one <eos> between each two
                  test.tokens         only if it was asked for
                  info.json           for each split: tokens, characters, bytes, documents, unknown;
                                      and what `lm/data/report.py` tells of the text

The key is a hash of the text itself and of all settings that shape the stream. While it is made,
the text lies beside it as one file for each split (`lm/data/text.py`), which is deleted then.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lm.config.schema import DataConfig
from lm.data import report
from lm.data.cache import cache_folder, make_once, mark_used
from lm.data.progress import ProgressCallback, no_progress, with_progress
from lm.data.sources import Source, find_source
from lm.data.text import Text, count_characters, in_order, write_text
from lm.errors import DataError, UserError
from lm.files import write_text as write_file
from lm.tokenization import vocabulary
from lm.tokenization.tokenizer import SEPARATOR, Tokenizer, cut

FORMAT = 2
SPLITS = ("train", "validation", "test")
_LEARNED_FROM = 100 << 20  # bytes of text that are enough to learn pieces of words
_PIECE = 1 << 14  # bytes that a trainer of `tokenizers` gets at a time


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
    test: Split | None
    parts: list[int]  # how many of the training tokens come from each dataset, in their order
    held_out: list[int]  # first rows of each dataset that --streaming must leave out of training
    facts: dict[str, Any]  # for the report


def open_corpus(config: DataConfig, progress: ProgressCallback = no_progress) -> Corpus:
    """Find the text and map its token stream, making it first if this is the first time.

    Raises UserError for text that cannot be read or is too small to learn from.
    """
    ready, shape = None, config.tokenizer
    if config.tokenizer not in vocabulary.KINDS:
        ready, shape = vocabulary.ready_tokenizer(config.tokenizer)
    sources = [find_source(dataset, config) for dataset in config.dataset]
    try:
        key = _key(sources, config, shape)
        make_once(key, lambda folder: _make(sources, config, ready, folder, progress))
    finally:
        for source in sources:
            source.forget()
    return cached_corpus(key)


def cached_corpus(key: str) -> Corpus | None:
    """The token stream that was made under `key`, or None. Needs the text itself no more."""
    folder = cache_folder() / key
    if not folder.is_dir():
        return None
    mark_used(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    splits = {
        name: Split(np.memmap(folder / f"{name}.tokens", tokenizer.dtype, mode="r"), Counts(**info[name]))
        for name in SPLITS
        if name in info
    }
    return Corpus(
        name=key.rpartition("-")[0],
        key=key,
        tokenizer=tokenizer,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        parts=info.get("parts", []),
        held_out=info.get("held_out", []),
        facts=info.get("facts", {}),
    )


def _key(sources: list[Source], config: DataConfig, tokenizer: str) -> str:
    shaping = asdict(config) | {"tokenizer": tokenizer}
    # The same text under another path is the same stream; the others change nothing on disk.
    for name in ("dataset", "mix", "shuffle_buffer", "data_report"):
        shaping.pop(name)
    text = json.dumps([FORMAT, [source.identity for source in sources], shaping], sort_keys=True)
    name = "+".join(source.name for source in sources)[:80]
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _make(
    sources: list[Source],
    config: DataConfig,
    ready: Tokenizer | None,
    folder: Path,
    progress: ProgressCallback,
) -> None:
    texts, held_out = read_splits(sources, config, folder, progress)
    found = report.survey(_blocks(texts["train"], "Counting", progress))
    tokenizer = ready or _learn(config, texts["train"], found.characters, progress)
    tokenizer.save(folder / "tokenizer.json")
    info: dict[str, Any] = {"held_out": held_out}
    for name, group in texts.items():
        counts, parts = write_tokens(folder / f"{name}.tokens", group, tokenizer, progress)
        if counts.tokens < 2:
            raise DataError(
                f"the {name} text of {' and '.join(s.name for s in sources)} has only {counts.tokens}"
                " token(s); at least 2 are needed to predict one from the other: give more text."
            )
        info |= {name: asdict(counts)} | ({"parts": parts} if name == "train" else {})
    tokens = (np.memmap(folder / f"{n}.tokens", tokenizer.dtype, mode="r") for n in ("train", "validation"))
    sample = next(texts["train"][0].blocks()).replace(SEPARATOR, b"").decode()
    unknown = tokenizer.unknown_in(sample if tokenizer.kind == "word" else "".join(found.characters))
    info["facts"] = found.saved() | {
        "unknown": unknown[: report.SHOWN] if ready else [],
        "repeated": report.repeated(*tokens),
        "exact": not ready or tokenizer.decode(tokenizer.encode(sample)) == sample,
    }
    for text in chain.from_iterable(texts.values()):
        text.path.unlink(missing_ok=True)
    write_file(folder / "info.json", json.dumps(info, indent=2, ensure_ascii=False))


def read_splits(
    sources: list[Source], config: DataConfig, folder: Path, progress: ProgressCallback
) -> tuple[dict[str, list[Text]], list[int]]:
    """For each split the texts of all sources, in files in `folder`; and how many rows of each
    --streaming holds out."""
    texts: dict[str, list[Text]] = {name: [] for name in SPLITS}
    held_out = []
    for number, source in enumerate(sources):
        stem, rows = folder / f"{number}", 0
        if config.streaming:
            from lm.data.streaming import read_samples

            progress(f"Reading the beginning of {source.name}", None)
            splits, rows = read_samples(source, config, stem)
        else:
            splits = _read(source, config, stem, progress)
        for name, text in splits.items():
            texts[name].append(text)
        held_out.append(rows)
    return {name: group for name, group in texts.items() if group}, held_out


def _read(source: Source, config: DataConfig, stem: Path, progress: ProgressCallback) -> dict[str, Text]:
    """Copy the splits of a source into files of their own, and cut off those that are fractions."""
    wanted = {"validation": config.validation_split, "test": config.test_split}
    if wanted["validation"] is None:
        wanted["validation"] = "validation" if "validation" in source.files else "0.1"
    fractions = {name: _fraction(name, split) for name, split in wanted.items()}
    named = {name: split for name, split in wanted.items() if split and fractions[name] is None}
    for split in (config.train_split, *named.values()):
        source.check(split)
    texts = {"train": copy_split(source, config.train_split, stem, progress)}
    if any(fractions.values()):
        total = sum(map(count_characters, texts["train"].blocks()))
        if total < 2:
            raise DataError(f"{source.name} has only one character: there is nothing to learn from it.")
        kept = 1.0
        for name in ("test", "validation"):  # the test text lies behind the validation text
            if fractions[name]:
                kept -= fractions[name]
                if kept <= 0:
                    raise UserError("--validation-split and --test-split leave nothing to train on.")
                texts["train"], texts[name] = texts["train"].cut(math.floor(total * kept))
    return texts | {name: copy_split(source, split, stem, progress) for name, split in named.items()}


def copy_split(source: Source, split: str, stem: Path, progress: ProgressCallback) -> Text:
    """Copy a split of a source into a file whose path begins with `stem`. Raises DataError."""
    here = source.fetched(split, progress)
    pieces = with_progress(here.read(split), f"Reading {source.name}", here.size(split), progress)
    text = write_text(Path(f"{stem}-{split}.text"), pieces, source.config.max_chars)
    if not len(text):
        raise DataError(f"the split '{split}' of {source.name} is empty.")
    return text


def _fraction(name: str, text: str | None) -> float | None:
    try:
        fraction = float(text)
    except (TypeError, ValueError):
        return None
    if not 0 < fraction < 1:
        raise UserError(f"--{name}-split must be a split's name or lie between 0 and 1, not {text}.")
    return fraction


def _learn(
    config: DataConfig, texts: list[Text], characters: dict[str, int], progress: ProgressCallback
) -> Tokenizer:
    kind, size, rare = config.tokenizer, config.vocab_size, config.min_frequency
    if kind == "char":  # whose counting is done already
        if len(characters) < 2:
            only = next(iter(characters))
            raise DataError(f"the training text holds only one distinct character, {only!r}: give more.")
        return vocabulary.char_tokenizer(characters, size, rare)
    # Of a long text, evenly spread samples are enough to learn pieces of words.
    every = 1 if kind == "word" else 1 + sum(map(len, texts)) // _LEARNED_FROM
    blocks = _blocks(texts, f"Learning the {kind} vocabulary", progress)
    sample = (block for number, block in enumerate(blocks) if number % every == 0)
    pieces = (p.decode() for block in sample for d in block.split(SEPARATOR) for p in cut(d, _PIECE))
    return vocabulary.train_tokenizer(kind, pieces, size, rare)


def write_tokens(
    path: Path, texts: list[Text], tokenizer: Tokenizer, progress: ProgressCallback
) -> tuple[Counts, list[int]]:
    """Write the tokens of all texts, and count them: all together, and the tokens of each."""
    counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
    separator = np.array([tokenizer.eos], tokenizer.dtype)
    ends, last = [], None
    with open(path, "wb") as file:

        def write(ids: np.ndarray) -> None:
            file.write(ids.data)  # not tofile, whose error does not tell that the disk is full
            counts["tokens"] += len(ids)

        def encode(block: bytes) -> tuple[np.ndarray, dict[str, int]]:
            ids, documents = tokenizer.encode_bytes(block), block.count(SEPARATOR)
            return ids, {
                "characters": count_characters(block),
                "bytes": len(block) - documents,
                "documents": documents,
                "unknown": 0 if tokenizer.unk is None else int(np.count_nonzero(ids == tokenizer.unk)),
            }

        for text in texts:
            if last is not None and last != tokenizer.eos:
                write(separator)
            counts["documents"] += 1
            blocks = _blocks([text], f"Making the {path.stem} tokens", progress)
            for ids, here in in_order(encode, blocks):
                write(ids)
                for name, count in here.items():
                    counts[name] += count
                last = ids[-1] if len(ids) else last
            ends.append(counts["tokens"])
    return Counts(**counts), [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _blocks(texts: list[Text], what: str, progress: ProgressCallback) -> Iterator[bytes]:
    """The blocks of all texts, with a separator between two texts."""
    blocks = (b for i, text in enumerate(texts) for b in chain([SEPARATOR] * (i > 0), text.blocks()))
    return with_progress(blocks, what, sum(map(len, texts)), progress)
