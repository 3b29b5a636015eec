"""The training text of a model, written out from its tokens so that it can be searched.

It lies in the cache folder beside the token stream that it is made from, and is mapped from disk:

    <cache>/<key>-text/train.text   UTF-8; between documents a SEPARATOR, for each <unk> an UNKNOWN, and
                                    MARGIN separators or more at both ends; a multiple of 8 bytes
                       train.json   name, and exact: whether it is the very text

What is written is what the tokens say, not what the files said: a model of words has never seen how
many spaces stood between two of them, and nor has it seen rare words that are <unk>.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lm.config.schema import DataConfig, RunConfig
from lm.data import reading
from lm.data.cache import build_once, cache_folder, entries, mark_used
from lm.data.corpus import cached_corpus, open_corpus
from lm.data.progress import ProgressCallback
from lm.data.sources import Source, find_source
from lm.data.text import write_text
from lm.errors import DataError, UserError
from lm.files import folder_or_previous, write_text as write_file
from lm.run_folder import Run, read_config
from lm.tokenization import vocabulary
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.tokenizer import Tokenizer

FORMAT = 1
UNKNOWN = b"\xfe"  # which UTF-8 never contains either
MARGIN = 64  # bytes
_BLOCK = 1 << 13  # tokens, so few that mostly all of them are of one byte each
_COUNTS = ("tokens", "characters", "documents")


@dataclass(frozen=True)
class Written:
    """A training text (bytes,) uint8, as said above, mapped from disk."""

    name: str
    text: np.ndarray
    exact: bool  # whether it is the very text, not that of another version of Python


def find_written(
    folder: Path | None, facts: dict[str, Any], tokenizer: Tokenizer, make: bool, progress: ProgressCallback
) -> Written:
    """The training text of the model in `folder`, or of one that is known by `facts`, its config.json.

    Looked for is the token stream of the run, then any in the cache with the name and the counts of
    `facts`. Python's own library is read again, and with `make` whatever else lies on this disk.
    Nothing is fetched. Raises UserError that says why the text is not to be had.
    """
    trained_on, config, run = _trained_on(facts), None, Run(folder) if folder else None
    model = str(folder or "the model")
    if run and run.config.is_file():
        config = RunConfig.from_flat(read_config(run.config), where=str(run.config)).data
    if config and config.streaming:
        raise UserError(f"{model} was trained with --streaming, which keeps nothing of the text.")
    key = (run and _stream_of(run)) or _stream_like(facts, tokenizer)
    if key and (found := _of_stream(key, progress)):
        return found
    if trained_on.get("dataset") == "python":
        return _of_library(trained_on, tokenizer, progress)
    what = f"the text that {model} was trained on, {trained_on['dataset']}," if trained_on else "its text"
    if make and config and all(map(_is_here, config.dataset)):
        if config.tokenizer not in vocabulary.KINDS:
            config = replace(config, tokenizer=str(folder / "tokenizer.json"))
        corpus = open_corpus(config, progress)
        if any(getattr(corpus.train.counts, name) != trained_on.get(name) for name in _COUNTS):
            raise DataError(f"{what} has changed since: copies can be found in what it was alone.")
        return _of_stream(corpus.key, progress)
    if not trained_on:
        raise UserError(f"{model} does not tell what text it was trained on.")
    raise DataError(
        f"{what} is not in the cache {cache_folder()}: it was trained on another machine, or the cache"
        " was emptied; train on that text once more, and it is there again."
    )


def _trained_on(facts: dict[str, Any]) -> dict[str, Any]:
    """What config.json tells of the text; nothing if someone has written something else there."""
    told = facts.get("trained_on")
    return told if isinstance(told, dict) and isinstance(told.get("dataset"), str) else {}


def _stream_of(run: Run) -> str | None:
    """The key of the token stream that a run reads, as its checkpoint tells."""
    folder = folder_or_previous(run.checkpoint)
    try:
        key = json.loads((folder / "progress.json").read_text(encoding="utf-8"))["corpus"] if folder else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # Whoever made the folder has written this: no path leads out of the cache.
    is_name = isinstance(key, str) and key not in ("", "..") and Path(key).name == key
    return key if is_name else None


def _stream_like(facts: dict[str, Any], tokenizer: Tokenizer) -> str | None:
    """The key of a token stream in the cache that has the name, the counts and the tokenizer of a model
    which was saved without its checkpoint. All of them together are as good as a hash."""
    trained_on = _trained_on(facts)
    names = _names(trained_on["dataset"]) if trained_on else ()
    for entry in entries():
        if entry.path.name.rpartition("-")[0] not in names:
            continue
        try:
            info = json.loads((entry.path / "info.json").read_text(encoding="utf-8"))
            alike = all(info["train"][name] == trained_on[name] for name in _COUNTS)
            same = alike and Tokenizer.load(entry.path / "tokenizer.json").backend.to_str()
        except (OSError, ValueError, KeyError, TypeError, UserError):
            continue
        if same and same == tokenizer.backend.to_str():
            return entry.path.name
    return None


def _names(dataset: str) -> set[str]:
    """What the stream of these datasets, as config.json names them, may be called."""
    last = [Path(reading.without_compression(part)).name for part in dataset.split(" + ")]
    return {"+".join(last)[:80], "+".join(Path(name).stem for name in last)[:80]}


def _is_here(dataset: str) -> bool:
    """Whether a text needs no network and can be read twice."""
    return dataset == "python" or Path(dataset).expanduser().exists() or glob.has_magic(dataset)


def _of_stream(key: str, progress: ProgressCallback) -> Written | None:
    """The text of a token stream, or None if neither of them is in the cache."""
    if not (cache_folder() / f"{key}-text").is_dir():
        corpus = cached_corpus(key)
        if corpus is None:
            return None

        def make(folder: Path) -> None:
            tokens = corpus.train.tokens
            blocks = (tokens[begin : begin + _BLOCK] for begin in range(0, len(tokens), _BLOCK))
            _write(folder, corpus.tokenizer, _with_progress(blocks, len(tokens), progress))
            write_file(folder / "train.json", json.dumps({"name": corpus.name, "exact": True}))

        build_once(f"{key}-text", make)
    return _opened(f"{key}-text")


def _of_library(trained_on: dict[str, Any], tokenizer: Tokenizer, progress: ProgressCallback) -> Written:
    """The beginning of this Python's standard library, as much of it as the model was trained on. It
    is exact if the tokens are as many as they were."""
    source, characters = _library(), trained_on.get("characters")
    limit = characters if isinstance(characters, int) and characters > 0 else None
    identity = json.dumps([FORMAT, source.identity, limit, tokenizer.backend.to_str()])
    key = f"python-{hashlib.sha256(identity.encode()).hexdigest()[:16]}-text"

    def make(folder: Path) -> None:
        text = write_text(folder / "library", source.read("train"), limit)
        counts = {"tokens": 0, "documents": 1}

        def encoded() -> Iterator[np.ndarray]:
            for block in text.blocks():
                ids = tokenizer.encode_bytes(block)
                counts["tokens"] += len(ids)
                counts["documents"] += block.count(SEPARATOR)
                yield ids

        _write(folder, tokenizer, _with_progress(encoded(), None, progress))
        text.path.unlink()
        exact = all(trained_on.get(name) == count for name, count in counts.items())
        write_file(folder / "train.json", json.dumps({"name": "python", "exact": exact}))

    build_once(key, make)
    return _opened(key)


@cache
def _library() -> Source:
    return find_source("python", DataConfig())  # looks through thousands of files, so only once


def _opened(key: str) -> Written:
    folder = cache_folder() / key
    mark_used(folder)
    told = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    return Written(told["name"], np.asarray(np.memmap(folder / "train.text", np.uint8, "r")), told["exact"])


def _with_progress(
    blocks: Iterable[np.ndarray], tokens: int | None, progress: ProgressCallback
) -> Iterator[np.ndarray]:
    done, what = 0, "Writing out the training text"
    progress(what, None)
    for block in blocks:
        yield block
        done += len(block)
        progress(what, done / tokens if tokens else None)


def _write(folder: Path, tokenizer: Tokenizer, blocks: Iterable[np.ndarray]) -> None:
    with open(folder / "train.text", "wb") as file:
        file.write(SEPARATOR * MARGIN)
        for piece in written(tokenizer, blocks):
            file.write(piece)
        file.write(SEPARATOR * (MARGIN + -file.tell() % 8))


def written(tokenizer: Tokenizer, blocks: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The text of a stream of tokens that comes in blocks (tokens,), as a model would write it: UTF-8
    with SEPARATOR for each <eos> and UNKNOWN for each <unk>. The <eos> of words is a line's end."""
    if tokenizer.kind == "word":
        names = map(tokenizer.backend.id_to_token, range(tokenizer.vocab_size))
        parts = [f" {name}".encode() for name in names]
        parts[tokenizer.eos], parts[tokenizer.unk] = b"\n", b" " + UNKNOWN
        before = b"\n"
        for piece in map(_joining(parts), blocks):
            text = (before[-1:] + piece).replace(b"\n ", b"\n")[1:]  # no space begins a line
            yield text
            before = text or before
        return
    parts = list(map(tokenizer.bytes_of, range(tokenizer.vocab_size)))
    if None in parts:
        yield from _written_one_by_one(tokenizer, blocks)
        return
    if tokenizer.unk is not None:
        parts[tokenizer.unk] = UNKNOWN
    parts[tokenizer.eos] = SEPARATOR
    yield from map(_joining(parts), blocks)


def _joining(parts: list[bytes]) -> Callable[[np.ndarray], bytes]:
    """A function that joins the parts of tokens (tokens,)."""
    table = np.frombuffer(b"".join(parts), np.uint8)
    lengths = np.array(list(map(len, parts)))
    begins = np.cumsum(lengths) - lengths

    def join(tokens: np.ndarray) -> bytes:
        here = lengths[tokens]
        if (here == 1).all():
            return table[begins[tokens]].tobytes()
        ends = np.cumsum(here)
        return table[np.arange(ends[-1]) + np.repeat(begins[tokens] - (ends - here), here)].tobytes()

    return join


def _written_one_by_one(tokenizer: Tokenizer, blocks: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The same for a tokenizer of another make, of which a token's text depends on its neighbours."""
    stream = tokenizer.decode_stream()
    for block in blocks:
        pieces = []
        for token in block.tolist():
            text = stream.step(token).encode()
            if token == tokenizer.eos:
                stream, text = tokenizer.decode_stream(), SEPARATOR
            if token == tokenizer.unk:  # the space before it is one that the model writes
                text = text.removesuffix(tokenizer.backend.id_to_token(token).encode()) + UNKNOWN
            pieces.append(text)
        yield b"".join(pieces)
