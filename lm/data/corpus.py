"""The token stream: each split of a text as one flat array of token ids, memory-mapped from disk.

It is built once and stored in the cache folder, so that later runs on the same text start immediately:

    <cache>/<key>/tokenizer.json
                  train.tokens        uint16 or uint32; one <eos> between documents
                  validation.tokens
                  test.tokens         only with --test-split
                  info.json           per split: tokens, characters, bytes, documents, unknown tokens;
                                      and the facts that `lm/data/report.py` shows
                  digests.json        the SHA-256 of the other two JSON files

The key is a hash of the text and of all settings that affect the stream. While the stream is being built,
each split's text is stored next to it in a temporary file (`lm/data/text.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lm.config.schema import DataConfig
from lm.console.invocation import command, quoted
from lm.console.progress import ProgressCallback, no_progress
from lm.console.wording import plural
from lm.data.cache import build_once, cache_folder, mark_used
from lm.data.corpus_tokenizer import is_exact, learn_tokenizer, unknown_parts
from lm.data.decoding import own_encoding_warning
from lm.data.find_source import find_sources, find_tokenizer
from lm.data.fingerprint import fingerprint_of
from lm.data.source import Source
from lm.data.splits import SPLITS, read_splits
from lm.data.survey import repeated_fraction, survey
from lm.data.text import Text, blocks_of
from lm.errors import DataError, ModelError, UserError, one_line
from lm.files import digests
from lm.files.atomic import portable_name, write_text
from lm.files.json_types import has_type
from lm.files.model_files import parse_json
from lm.parallel import in_order
from lm.tokenization import vocabulary
from lm.tokenization.documents import SEPARATOR, count_characters
from lm.tokenization.tokenizer import Tokenizer

FORMAT = 2
# Increase these when tables may be read as different text, or text may be encoded as different tokens. (Those
# of char and byte do not depend on where it is cut.)
TABLE_FORMAT, TOKEN_FORMAT = 6, 2
ENCODING_FORMAT = 2  # increase this when the same --encoding may read files differently
_DIGESTED = ("info.json", "tokenizer.json")  # not the tokens: hashing them at each start takes seconds


@dataclass(frozen=True)
class Counts:
    """The size of a split."""

    tokens: int  # including the <eos> between documents
    characters: int
    bytes: int  # of the text as UTF-8
    documents: int
    unknown: int  # <unk> tokens


@dataclass(frozen=True)
class Split:
    """The tokens (tokens,) uint16 or uint32 of a split, memory-mapped, and their counts."""

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
    parts: list[int]  # training tokens from each dataset, in their order
    held_out: list[int]  # first rows of each dataset that --streaming must leave out of training
    facts: dict[str, Any]  # for the report
    fingerprint: str = ""  # of the text; unknown in the cache of an earlier version
    tokenizer_id: str = ""  # part of the key; empty unless `open_corpus` returned it


def open_corpus(
    config: DataConfig,
    progress: ProgressCallback = no_progress,
    *,
    of_run: bool = False,
    copy: tuple[Path, str] | None = None,
    revisions: Sequence[str | None] | None = None,
) -> Corpus:
    """Find the text and map its token stream, building it first if it is not in the cache or damaged there.

    `of_run`: the settings are those of a run, which has a `copy` of its tokenizer, with the `tokenizer_id` of
    the original, in case that is gone. `revisions` are the commits of datasets on the Hub that it has read.
    Raises UserError if the text cannot be read or is too small to learn from.
    """
    external, tokenizer_id = None, config.tokenizer
    if config.tokenizer not in vocabulary.KINDS:
        external, tokenizer_id = _external_tokenizer(config.tokenizer, copy)
    sources = find_sources(config, revisions, of_run=of_run)

    def build(folder: Path) -> None:
        _build(sources, config, external, folder, progress)

    try:
        key = _key(sources, config, tokenizer_id)
        fingerprint = fingerprint_of(source.identity for source in sources)
        build_once(key, build)
        corpus = cached_corpus(key)
        damaged = corpus is None
        if corpus is None:
            build_once(key, build, is_whole=lambda: cached_corpus(key) is not None)
            corpus = read_corpus(key)
    finally:
        for source in sources:
            source.forget()
    listings = [source.listing.row() for source in sources if source.listing]
    # Files that are left out change nothing in the stream, so they are not stored with it.
    warnings = [warning for source in sources for warning in source.warnings]
    if damaged:
        warnings.append(f"the cached tokens of {corpus.name} were damaged, and have been built again.")
    more = {"files": list(filter(None, listings)), "hub": _hub_facts(sources), "warnings": warnings}
    facts = corpus.facts | more
    return replace(corpus, facts=facts, fingerprint=fingerprint, tokenizer_id=tokenizer_id)


def _external_tokenizer(name: str, copy: tuple[Path, str] | None) -> tuple[Tokenizer, str]:
    """The tokenizer of that name or, if it cannot be found, its copy; and its id. Raises UserError."""
    try:
        path = find_tokenizer(name)
    except UserError:
        if copy is None or not copy[1] or not copy[0].is_file():
            raise
        return vocabulary.load_external(copy[0])[0], copy[1]
    tokenizer, identity = vocabulary.load_external(path)
    # Before, the start of each block was encoded as that of a document.
    return tokenizer, identity + "+2" if tokenizer.subwords.start_differs else identity


def cached_corpus(key: str) -> Corpus | None:
    """The token stream stored under `key`, or None if it is missing or damaged. The text is not needed."""
    with suppress(DataError):
        corpus = read_corpus(key)
        mark_used(cache_folder() / key)
        return corpus
    return None


def content_key(key: str) -> str:
    """The part of a token stream's key that depends on the text and the settings, not on the file's name."""
    return key.rpartition("-")[2]


def read_corpus(key: str) -> Corpus:
    """The token stream stored under `key`. This does not count as using it. Raises DataError if it is missing
    or damaged; changed tokens are not noticed, only a wrong number of them."""
    folder = cache_folder() / key
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        remedy = f"delete it with `{command('data clear')} {quoted(key)}`"
        raise DataError(f"the token stream {folder} is damaged: {remedy}.") from error


def _read(folder: Path) -> Corpus:
    """The token stream in a folder. Raises errors of any kind if it is damaged."""
    _check_digests(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    info = parse_json((folder / "info.json").read_bytes())
    splits = {name: _read_split(folder, name, tokenizer, info[name]) for name in SPLITS if name in info}
    return Corpus(
        name=folder.name.rpartition("-")[0],
        key=folder.name,
        tokenizer=tokenizer,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        parts=info.get("parts", []),
        held_out=info.get("held_out", []),
        facts=info.get("facts", {}),
        fingerprint=info.get("fingerprint", ""),
    )


def _check_digests(folder: Path) -> None:
    """Raise ValueError if a JSON file is not the one that was written. Streams of earlier versions have no
    digests."""
    if (path := folder / "digests.json").exists():
        stored = parse_json(path.read_bytes())
        for name in _DIGESTED:
            if digests.digest_of(folder / name) != stored[name]:
                raise ValueError(f"{name} has changed")


def _read_split(folder: Path, name: str, tokenizer: Tokenizer, counts: Any) -> Split:
    """A split with these counts. Raises ValueError, among others, if it has another number of tokens."""
    tokens = _map_tokens(folder, name, tokenizer)
    if not has_type(counts, dict[str, int], minimum=0) or len(tokens) != counts["tokens"]:
        raise ValueError(f"{name} has {len(tokens)} tokens")
    return Split(tokens, Counts(**counts))


def _map_tokens(folder: Path, split: str, tokenizer: Tokenizer) -> np.ndarray:
    return np.memmap(folder / f"{split}.tokens", tokenizer.dtype, mode="r")


def _hub_facts(sources: list[Source]) -> dict[str, dict[str, Any]]:
    """What is known about the datasets on the Hub, by their names in the settings."""
    return {name: facts for source in sources for name, facts in source.hub.items()}


def _key(sources: list[Source], config: DataConfig, tokenizer_id: str) -> str:
    settings = asdict(config) | {"tokenizer": tokenizer_id}
    # Of `dataset`, only the content counts, not its path; the others do not affect the stream.
    for name in ("dataset", "mix", "shuffle_buffer", "data_report"):
        settings.pop(name)
    # Later settings count only if they are given: the streams in older caches stay valid.
    defaults = asdict(DataConfig())
    for name in ("encoding", "document_separator", "json_field", "header"):
        if settings[name] == defaults[name]:
            settings.pop(name)
    if config.encoding:
        settings["encodings"] = ENCODING_FORMAT
    if any(source.kind != "text" for source in sources):
        settings["tables"] = TABLE_FORMAT
    if config.tokenizer not in ("char", "byte"):
        settings["tokens"] = TOKEN_FORMAT
    text = json.dumps([FORMAT, [source.identity for source in sources], settings], sort_keys=True)
    name = portable_name("+".join(source.name for source in sources)[:80])
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _build(
    sources: list[Source],
    config: DataConfig,
    external: Tokenizer | None,
    folder: Path,
    progress: ProgressCallback,
) -> None:
    texts, held_out = read_splits(sources, config, folder, progress)
    found = survey(blocks_of(texts["train"], "Counting characters", progress))
    tokenizer = external or learn_tokenizer(config, texts["train"], found.characters, progress)
    tokenizer.save(folder / "tokenizer.json")
    try:
        # `tokenizers` reads the numbers of unigram with another last digit: encode as the model will.
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    except ModelError as error:
        raise DataError(
            f"the vocabulary of this text cannot be stored: {one_line(error.__cause__ or error)} Choose a"
            " smaller --vocab-size or another --tokenizer."
        ) from error
    fingerprint = fingerprint_of(source.identity for source in sources)
    info: dict[str, Any] = {"held_out": held_out, "fingerprint": fingerprint}
    for name, group in texts.items():
        counts, parts = write_tokens(folder / f"{name}.tokens", group, tokenizer, progress)
        if counts.tokens < 2:
            raise DataError(
                f"the {name} text of {' and '.join(s.name for s in sources)} has only"
                f" {plural(counts.tokens, 'token')}, but at least 2 are needed: use more text."
            )
        info |= {name: asdict(counts)} | ({"parts": parts} if name == "train" else {})
    unknown: list[str] = []
    if external and info["train"]["unknown"]:
        blocks: Iterable[bytes] = ["".join(found.characters).encode()]  # of `char`, the characters are enough
        if tokenizer.kind != "char":
            blocks = blocks_of(texts["train"], "Listing unknown tokens", progress, tokenizer.kind)
        unknown = unknown_parts(tokenizer, blocks)
    info["facts"] = found.summary() | {
        "replaced": sum(source.decoded.replaced for source in sources),
        "decoded": sum(source.decoded.characters for source in sources),
        "own_encoding": [line for s in sources if (line := own_encoding_warning(s.decoded.own_encoding))],
        "unknown": unknown,
        "repeated": repeated_fraction(
            _map_tokens(folder, "train", tokenizer),
            _map_tokens(folder, "validation", tokenizer),
            tokenizer.eos,
            tokenizer.kind,
        ),
        "exact": not external or (not unknown and is_exact(tokenizer, texts["train"], progress)),
        "tables": [table for source in sources for table in source.table_facts()],
        "hub": _hub_facts(sources),
    }
    for source in sources:
        source.check_unchanged()
    for text in chain.from_iterable(texts.values()):
        text.path.unlink(missing_ok=True)
    described = json.dumps(info, indent=2, ensure_ascii=False)
    # Names of files and columns may contain what is not UTF-8.
    write_text(folder / "info.json", described.encode("utf-8", "replace").decode())
    stored = {name: digests.digest_of(folder / name) for name in _DIGESTED}
    write_text(folder / "digests.json", json.dumps(stored))


def write_tokens(
    path: Path, texts: list[Text], tokenizer: Tokenizer, progress: ProgressCallback
) -> tuple[Counts, list[int]]:
    """Write the tokens of all texts to one file. Returns their counts and the number of tokens of each."""
    counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
    separator: np.ndarray = np.array([tokenizer.eos], tokenizer.dtype)
    ends, last = [], None
    with open(path, "wb") as file:

        def write(ids: np.ndarray) -> None:
            file.write(ids.data)  # not tofile, whose error does not say that the disk is full
            counts["tokens"] += len(ids)

        def encode(blocks: tuple[bytes, bytes]) -> tuple[np.ndarray, dict[str, int]]:
            before, block = blocks
            ids = tokenizer.encode_bytes(block, continues=not before.endswith(SEPARATOR))
            documents = block.count(SEPARATOR)
            return ids, {
                "characters": count_characters(block),
                "bytes": len(block) - documents,
                "documents": documents,
                "unknown": tokenizer.count_unknown(ids),
            }

        for text in texts:
            if last is not None and last != tokenizer.eos:
                write(separator)
            counts["documents"] += 1
            blocks = blocks_of([text], f"Tokenizing the {path.stem} text", progress, tokenizer.kind)
            for ids, block_counts in in_order(encode, pairwise(chain([SEPARATOR], blocks))):
                write(ids)
                for name, count in block_counts.items():
                    counts[name] += count
                last = ids[-1] if len(ids) else last
            ends.append(counts["tokens"])
    return Counts(**counts), [end - start for start, end in zip([0, *ends], ends, strict=False)]
