"""`--streaming`: a text that is read while it is trained on, because it does not fit on the disk.

The vocabulary comes from a sample, the first documents, of which the very first ones validate if
the set has no split for that. Then `DocumentStream` reads on for ever, and `StreamedWindows` deals
its documents to the parallel streams: whichever is short of text gets the next one.

Documents are shuffled by a buffer that is filled, emptied in random order and filled again. So the
place in the data is where the buffer's filling began and how much was taken out, and a resumed run
sees exactly what an unbroken one would have seen. (The buffer of `datasets` itself loses what is in
it when it is resumed.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lm.config.schema import DataConfig
from lm.data import reading
from lm.data.sources import Source, find_source
from lm.data.text import Text, write_text
from lm.errors import DataError, UserError
from lm.tokenization.tokenizer import SEPARATOR, Tokenizer

if TYPE_CHECKING:
    import datasets

_SAMPLE = 10_000_000  # characters that the vocabulary is made of
_HELD_OUT = 500_000  # characters that validate, or a tenth of the sample if that is less
_PEEK = 64  # rows by which the column of text is found
# Seconds after which reading goes on when the Hub cannot be reached, beside the half minute that
# `huggingface_hub` tries by itself.
_WAITS = (10, 30, 60, 120, 240)


def read_samples(source: Source, config: DataConfig, stem: Path) -> tuple[dict[str, Text], int]:
    """The sample and the validation text of a source, and how many rows of the training
    split were taken for validation. Raises DataError."""
    for name in ("validation", "test"):
        split = getattr(config, f"{name}_split")
        if split and split not in source.files:
            raise UserError(
                f"with --streaming, --{name}-split is the name of a split; {source.name} has"
                f" {', '.join(source.files)}."
            )
    wanted = {"train": config.train_split, "test": config.test_split}
    wanted["validation"] = config.validation_split or ("validation" if "validation" in source.files else None)
    samples = {
        name: list(_first(_texts(source, split), _SAMPLE if name == "train" else 2 * _HELD_OUT))
        for name, split in wanted.items()
        if split
    }
    held_out = 0
    if "validation" not in samples:
        train = samples["train"]
        left = max(1, min(_HELD_OUT, sum(map(len, train)) // 10))
        while left > 0 and held_out < len(train):
            left -= len(train[held_out])
            held_out += 1
        samples["validation"], samples["train"] = train[:held_out], train[held_out:]
    texts = {}
    for name, sample in samples.items():
        if not any(sample):
            raise DataError(
                f"{source.name} has too few documents to stream: nothing is left for the {name} text."
            )
        together = SEPARATOR.join(text.encode() for text in sample if text)
        texts[name] = write_text(Path(f"{stem}-{name}.text"), [together])
    return texts, held_out


def _texts(source: Source, split: str) -> Iterator[str]:
    """The text of each row of a split, empty where there is none, read as they are asked for."""
    source.check(split)
    with source.telling_trouble(split):
        yield from (row["text"] or "" for row in _rows(source, split))


class DocumentStream:
    """The documents of all texts for ever, in a random order that depends on `seed` alone."""

    def __init__(self, config: DataConfig, held_out: list[int], seed: int):
        import datasets

        # Its threads would be waited for at every end.
        datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
        self._config, self._held_out, self._split = config, held_out, config.train_split
        self._size, self._seed = config.shuffle_buffer, seed
        self._open([config.dataset_revision] * len(config.dataset))
        self._pool, self._closed = ThreadPoolExecutor(1), Event()
        self.restore({"epoch": 0, "buffer": 0, "taken": 0, "rows": None})

    def _open(self, revisions: list[str | None]) -> None:
        import datasets

        config, seed = self._config, self._seed
        self._sources = [
            find_source(dataset, replace(config, dataset_revision=revision))
            for dataset, revision in zip(config.dataset, revisions, strict=True)
        ]
        with self._sources[0].telling_trouble(self._split):
            each = [
                _rows(source, self._split).skip(n)
                if n
                else _rows(source, self._split).shuffle(seed, buffer_size=1)
                for source, n in zip(self._sources, self._held_out, strict=True)
            ]
            if config.mix:
                self._rows = datasets.interleave_datasets(
                    each, probabilities=list(config.mix), seed=seed, stopping_strategy="all_exhausted"
                )
            else:
                self._rows = datasets.concatenate_datasets(each) if len(each) > 1 else each[0]

    def __next__(self) -> str:
        while self._taken >= len(self._documents):
            self._place, self._documents, self._next = self._filled()
            self._taken = 0
        document = self._documents[self._taken]
        self._taken += 1
        return document

    @property
    def place(self) -> dict[str, Any]:
        """Where the stream stands; can be written as JSON."""
        return self._place | {"taken": self._taken, "revisions": self._revisions}

    @property
    def _revisions(self) -> list[str | None]:
        return [source.revision for source in self._sources]

    def restore(self, place: dict[str, Any]) -> None:
        """Go to a place where a stream of the same settings stood, and to the commits of then."""
        revisions = place.get("revisions", self._revisions)
        if revisions != self._revisions:
            self._open(revisions)
        self._next = self._pool.submit(self._fill, place, restoring=True)
        self._place, self._documents, self._next = self._filled()
        self._taken = place["taken"]

    def close(self) -> None:
        """Read no further."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _filled(self) -> tuple[dict[str, Any], list[str], Any]:
        with self._sources[0].telling_trouble(self._split):
            place, texts, after = self._next.result()
        # The next buffer is filled while this one is being emptied.
        return place, texts, self._pool.submit(self._fill, after)

    def _fill(self, place: dict[str, Any], restoring: bool = False) -> tuple[dict, list[str], dict]:
        """The place where a buffer begins, its documents in random order, the place after it. What
        broke off on the way from the Hub is read again, from the buffer's beginning."""
        for wait in _WAITS:
            try:
                return self._read(place, restoring)
            except Exception as error:
                from lm.data.hub import is_of_network

                if self._closed.is_set() or not is_of_network(error):
                    raise
                print(f"\nThe Hub cannot be reached; trying again in {wait} s.", file=sys.stderr)
                if self._closed.wait(wait):
                    raise
                restoring = True
        return self._read(place, restoring)

    def _read(self, place: dict[str, Any], restoring: bool) -> tuple[dict, list[str], dict]:
        place = {**place, "taken": 0}
        if restoring:
            self._rows.set_epoch(place["epoch"])
            if place["rows"]:
                self._rows.load_state_dict(place["rows"])
            self._iterator = iter(self._rows)
        texts = []
        for row in self._iterator:
            if row["text"]:
                texts.append(row["text"])
            if len(texts) == self._size or self._closed.is_set():
                break
        order = np.random.default_rng([self._seed, place["epoch"], place["buffer"]]).permutation(len(texts))
        after = {**place, "buffer": place["buffer"] + 1, "rows": self._rows.state_dict()}
        if len(texts) < self._size:
            if not texts and place["buffer"] == 0:
                raise DataError(f"the split '{self._split}' has no documents to train on.")
            after = {"epoch": place["epoch"] + 1, "buffer": 0, "taken": 0, "rows": None}
            self._rows.set_epoch(after["epoch"])
            self._iterator = iter(self._rows)
        return place, [texts[i] for i in order], after


class StreamedWindows:
    """Windows for truncated back-propagation over documents that come one after the other.

    Of all streams only `rows` are read here and the others by other processes. Which stream gets a
    document depends on all that came before, so each process deals out all of them: the place in the
    text is the same everywhere, and another number of processes can go on from it.
    """

    steps_per_epoch = None  # nobody knows how long the text is

    def __init__(
        self,
        documents: DocumentStream,
        tokenizer: Tokenizer,
        batch_size: int,
        bptt: int,
        device: torch.device,
        backward: bool = False,
        rows: slice | None = None,
    ):
        self.documents, self.tokenizer, self.device = documents, tokenizer, device
        self.batch_size, self.bptt, self.backward = batch_size, bptt, backward
        self.rows = rows or slice(0, batch_size)
        # For each stream, the token it read last and those that it has not read yet.
        self._last = np.full((batch_size, 1), tokenizer.eos, np.int64)
        self._ahead = [np.zeros(0, tokenizer.dtype) for _ in range(batch_size)]

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one window of all streams."""
        return self.batch_size * self.bptt

    def window(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and the targets, each (rows, time) int64, of the next window."""
        for stream in range(self.batch_size):
            while len(self._ahead[stream]) < self.bptt:
                self._ahead[stream] = np.concatenate([self._ahead[stream], self._document()])
        targets = np.stack([ahead[: self.bptt] for ahead in self._ahead]).astype(np.int64)
        inputs = np.concatenate([self._last, targets[:, :-1]], axis=1)
        self._last = targets[:, -1:]
        self._ahead = [ahead[self.bptt :] for ahead in self._ahead]
        inputs, targets = (torch.from_numpy(part[self.rows]).to(self.device) for part in (inputs, targets))
        return inputs, targets

    def place(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Where the windows stand: what can be written as JSON, and tensors."""
        lengths = torch.tensor([len(ahead) for ahead in self._ahead])
        tokens = torch.from_numpy(np.concatenate(self._ahead).astype(np.int64))
        return self.documents.place, {
            "last": torch.from_numpy(self._last),
            "ahead": tokens,
            "lengths": lengths,
        }

    def restore(self, place: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go to a place where windows of the same settings stood."""
        self.documents.restore(place)
        self._last = tensors["last"].numpy()
        ahead = tensors["ahead"].numpy().astype(self.tokenizer.dtype)
        self._ahead = np.split(ahead, np.cumsum(tensors["lengths"].numpy())[:-1])

    def close(self) -> None:
        """Read no further."""
        self.documents.close()

    def _document(self) -> np.ndarray:
        """The tokens (tokens,) of the next document in the order in which they are read, and <eos>."""
        ids = self.tokenizer.encode(next(self.documents))
        if len(ids) and ids[-1] == self.tokenizer.eos:  # the end of its last line, in words
            ids = ids[:-1]
        end = np.array([self.tokenizer.eos], ids.dtype)
        return np.concatenate([ids[::-1] if self.backward else ids, end])


def _rows(source: Source, split: str) -> datasets.IterableDataset:
    """A split as rows with one column, text."""
    rows = source.rows(split)
    table = next(rows.with_format("arrow").iter(batch_size=_PEEK), None)
    if table is None:
        raise DataError(f"the split '{split}' of {source.name} is empty: there is nothing to learn from.")
    column = source.config.text_column or reading.text_column(table, source.name)
    reading.column_of(table, column, source.name)
    rows = rows.select_columns([column])
    return rows if column == "text" else rows.rename_column(column, "text")


def _first(texts: Iterator[str], characters: int) -> Iterator[str]:
    """Documents until there are so many characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return
