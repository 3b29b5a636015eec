"""`--streaming`: reads text while training on it, for text that does not fit on the disk.

`DocumentStream` yields documents endlessly, and `StreamedWindows` assigns them to the parallel streams of a
batch: whichever stream runs out of text gets the next document. (The vocabulary is learned from a sample,
see `lm/data/splits.py`.)

Documents are shuffled by a buffer that is filled, emptied in random order and filled again. The position
in the data is therefore where filling the buffer began and how many documents were taken from it, and a
resumed run sees exactly what an uninterrupted one would have seen. (The shuffle buffer of `datasets` loses
its contents on resume.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.config.schema import DataConfig
from lm.data.batches import WindowSizes, to_device
from lm.data.datasets_library import datasets_library
from lm.data.find_source import find_sources
from lm.data.source import Source
from lm.errors import DataError
from lm.hub_errors import is_network_error
from lm.model.direction import Direction
from lm.tokenization.tokenizer import Tokenizer

# Seconds to wait before each retry when the Hub cannot be reached, on top of the half minute for which
# `huggingface_hub` retries.
RETRY_WAITS = (10, 30, 60, 120, 240)
# The position before a buffer, its documents in random order, the position after it.
_Buffer = tuple[dict[str, Any], list[str], dict[str, Any]]


class DocumentStream(Iterator[str]):
    """The documents of all datasets, endlessly, in a random order that depends only on `seed`.

    `held_out` is the number of first rows of each dataset to leave out. Raises UserError if the datasets
    cannot be read or the `datasets` library is not installed.
    """

    def __init__(self, config: DataConfig, held_out: list[int], seed: int):
        self._datasets = datasets_library("--streaming")
        # Without this, exiting waits for its threads.
        self._datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
        self._config, self._held_out, self._split = config, held_out, config.train_split
        self._size, self._seed = config.shuffle_buffer, seed
        self._sources = self._open(None)
        self._pool, self._closed = ThreadPoolExecutor(1), Event()
        self._position: dict[str, Any] = {}
        self._documents: list[str] = []
        self._taken = 0
        self.restore({"epoch": 0, "buffer": 0, "taken": 0, "rows": None})

    def __next__(self) -> str:
        while self._taken >= len(self._documents):
            self._advance()
        document = self._documents[self._taken]
        self._taken += 1
        return document

    @property
    def position(self) -> dict[str, Any]:
        """The position in the data, as JSON values."""
        return self._position | {"taken": self._taken, "revisions": self._revisions}

    @property
    def _revisions(self) -> list[str | None]:
        return [source.revision for source in self._sources]

    def restore(self, position: dict[str, Any]) -> None:
        """Go to a position of a stream with the same settings, at the commits the datasets had then."""
        revisions = position.get("revisions", self._revisions)
        if revisions != self._revisions:
            self._sources = self._open(revisions)
        self._next: Future[_Buffer] = self._pool.submit(self._fill, position, restoring=True)
        self._advance()
        self._taken = position["taken"]

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _open(self, revisions: list[str | None] | None) -> list[Source]:
        config, seed = self._config, self._seed
        sources = find_sources(config, revisions, of_run=True)
        each = [
            source.text_rows(self._split).skip(n)
            if n
            else source.text_rows(self._split).shuffle(seed, buffer_size=1)
            for source, n in zip(sources, self._held_out, strict=True)
        ]
        if config.mix:
            self._rows = self._datasets.interleave_datasets(
                each, probabilities=list(config.mix), seed=seed, stopping_strategy="all_exhausted"
            )
        elif len(each) > 1:
            self._rows = self._datasets.concatenate_datasets(each)
            if self._in_order:
                self._rows = self._rows.skip(0)
        else:
            self._rows = each[0]
        return sources

    @property
    def _in_order(self) -> bool:
        """Whether the files of several datasets keep their order. Otherwise, `datasets` shuffles them in each
        epoch after the first, and then skips other rows than those that are held out."""
        return len(self._held_out) > 1 and any(self._held_out) and not self._config.mix

    def _advance(self) -> None:
        """Move on to the next buffer, and start filling the one after it."""
        self._position, self._documents, after = self._next.result()
        self._next = self._pool.submit(self._fill, after)
        self._taken = 0

    def _fill(self, position: dict[str, Any], restoring: bool = False) -> _Buffer:
        """Fill a buffer; after a network error, from its beginning."""
        for wait in RETRY_WAITS:
            try:
                return self._read(position, restoring)
            except Exception as error:
                if self._closed.is_set() or not is_network_error(error.__cause__ or error):
                    raise
                print(f"\nThe Hub cannot be reached; retrying in {wait} s.", file=sys.stderr)
                if self._closed.wait(wait):
                    raise
                restoring = True
        return self._read(position, restoring)

    def _read(self, position: dict[str, Any], restoring: bool) -> _Buffer:
        position = {**position, "taken": 0}
        if restoring:
            self._rows.set_epoch(position["epoch"])
            rows = _upgraded_position(position["rows"])
            # That of an older version counts rows in another order: its epoch begins again.
            if rows and (not self._in_order or rows["examples_iterable"]["type"] == "SkipExamplesIterable"):
                self._rows.load_state_dict(rows)
            self._iterator = iter(self._rows)
        texts = []
        for row in self._iterator:
            if row["text"]:
                texts.append(row["text"])
            if len(texts) == self._size or self._closed.is_set():
                break
        seed = [self._seed, position["epoch"], position["buffer"]]
        order = np.random.default_rng(seed).permutation(len(texts))
        after = {**position, "buffer": position["buffer"] + 1, "rows": self._rows.state_dict()}
        if len(texts) < self._size:
            if not texts and position["buffer"] == 0:
                raise DataError(f"the split '{self._split}' has no documents to train on.")
            after = {"epoch": position["epoch"] + 1, "buffer": 0, "taken": 0, "rows": None}
            self._rows.set_epoch(after["epoch"])
            self._iterator = iter(self._rows)
        return position, [texts[i] for i in order], after


def _upgraded_position(state: Any) -> Any:
    """A saved position in the rows of a dataset, in today's format.

    Runs from before `lm` read tables itself saved the position of a loader of `datasets`: the last part of a
    file that it had read as a whole, and the number of rows since.
    """
    if isinstance(state, list):
        return [_upgraded_position(item) for item in state]
    if not isinstance(state, dict):
        return state
    if state.get("type") != "MappedExamplesIterable":
        return {name: _upgraded_position(value) for name, value in state.items()}
    rows = state["examples_iterable"]
    while "shard_idx" not in rows["examples_iterable"]:
        rows = rows["examples_iterable"]
    begin = rows["previous_state"] or rows["examples_iterable"]
    row = begin["shard_example_idx"] + rows["num_chunks_since_previous_state"]
    return {"shard_idx": begin["shard_idx"], "shard_example_idx": row, "type": "ExamplesIterable"}


class StreamedWindows(WindowSizes):
    """Windows for truncated backpropagation over consecutive documents.

    Only the streams in `rows` are returned; other processes train on the others. Which stream gets a
    document depends on everything before it, so each process assigns documents to all streams: the position
    in the text is the same in all of them, and a run can resume with another number of processes.
    """

    steps_per_epoch = None  # the length of the text is unknown
    on_device = False

    def __init__(
        self,
        documents: DocumentStream,
        tokenizer: Tokenizer,
        batch_size: int,
        bptt: int,
        device: torch.device,
        direction: Direction = Direction.FORWARD,
        rows: slice | None = None,
    ):
        self.documents, self.tokenizer, self.device = documents, tokenizer, device
        self.batch_size, self.bptt, self.direction = batch_size, bptt, direction
        self.rows = rows or slice(0, batch_size)
        # For each stream, the last token it has read and the tokens it has yet to read.
        self._last: np.ndarray = np.full((batch_size, 1), tokenizer.eos, np.int64)
        self._ahead: list[np.ndarray] = [np.zeros(0, tokenizer.dtype) for _ in range(batch_size)]

    def window(self, number: int | Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets of the next window, each (rows, time) int64; `number` is ignored."""
        for stream in range(self.batch_size):
            while len(self._ahead[stream]) < self.bptt:
                self._ahead[stream] = np.concatenate([self._ahead[stream], self._next_document()])
        targets = np.stack([ahead[: self.bptt] for ahead in self._ahead]).astype(np.int64)
        inputs = np.concatenate([self._last, targets[:, :-1]], axis=1)
        self._last = targets[:, -1:]
        self._ahead = [ahead[self.bptt :] for ahead in self._ahead]
        own = (torch.from_numpy(tokens[self.rows]) for tokens in (inputs, targets))
        return to_device(next(own), self.device), to_device(next(own), self.device)

    def position(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The position in the data: JSON values and tensors."""
        lengths = torch.tensor([len(ahead) for ahead in self._ahead])
        tokens = torch.from_numpy(np.concatenate(self._ahead).astype(np.int64))
        return self.documents.position, {
            "last": torch.from_numpy(self._last),
            "ahead": tokens,
            "lengths": lengths,
        }

    def restore(self, position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go to a position of windows with the same settings."""
        self.documents.restore(position)
        self._last = tensors["last"].numpy()
        ahead: np.ndarray = tensors["ahead"].numpy().astype(self.tokenizer.dtype)
        self._ahead = np.split(ahead, np.cumsum(tensors["lengths"].numpy())[:-1])

    def close(self) -> None:
        """Stop reading."""
        self.documents.close()

    def _next_document(self) -> np.ndarray:
        """The tokens (tokens,) of the next document in reading order, followed by <eos>."""
        ids = self.tokenizer.encode(next(self.documents))
        if len(ids) and ids[-1] == self.tokenizer.eos:  # in word, the end of its last line
            ids = ids[:-1]
        end: np.ndarray = np.array([self.tokenizer.eos], ids.dtype)
        return np.concatenate([self.direction.reorder(ids), end])
