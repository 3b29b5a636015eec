"""Which spans of a text stand word for word in the training text: does a model recite?

>>> from lm.memorization.search import TrainingText
>>> training = TrainingText.of("runs/hamlet")
>>> training.copied_spans("To be, or not to be, that is the question")
[(0, 41)]

A span of so many bytes that is copied holds, wherever it lies in the training text, 16 bytes there that
begin at a multiple of 8. So one pass over the training text looks at every eighth place alone, whether
its 16 bytes are some of the given text, and that costs about half a nanosecond a byte. The few places
that are left are compared with whole grams of the text, as many bytes as the shortest span has, and
from each gram that is found there the longest span is followed both ways, byte by byte. Nothing rests
on a hash: it only says where to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lm.data.progress import ProgressCallback, no_progress
from lm.errors import UserError
from lm.memorization.training_text import MARGIN, UNKNOWN, find_written
from lm.tokenization.documents import SEPARATOR, character_starts
from lm.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm.language_model import LanguageModel

LEAST = 23  # characters: 16 bytes from a multiple of 8 on lie in any 23
_WORDS = 1 << 17  # of 8 bytes that are looked at together; fits into the cache of a core
_TOGETHER = 32  # times so much of the training text is compared with the grams together,
_MOST_PLACES = 1 << 20  # or as much as holds so many places at which one may begin
_ROWS = 1 << 16  # places that are compared together
_FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)
_NOTHING = 0xFD  # around the given text: a byte that no text contains


@dataclass(frozen=True)
class Copy:
    """A span that is copied, as long as it can be."""

    start: int  # character of the given text
    end: int  # exclusive
    place: int  # byte of the training text at which an example of it begins


@dataclass(frozen=True)
class Found:
    """The copies in a text, in order. They may overlap, and none lies inside another."""

    copies: list[Copy]
    searched: float  # share of the training text that was looked through; 1: all

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(start, end) of each copy, in characters."""
        return [(copy.start, copy.end) for copy in self.copies]

    @property
    def marked(self) -> list[tuple[int, int]]:
        """The same, with those joined that overlap or touch: what is to be marked."""
        joined: list[tuple[int, int]] = []
        for start, end in self.spans:
            if joined and start <= joined[-1][1]:
                start = joined.pop()[0]
            joined.append((start, end))
        return joined


@dataclass(frozen=True)
class TrainingText:
    """The text that a model was trained on: `text` (bytes,) uint8; see training_text.py."""

    name: str
    text: np.ndarray
    exact: bool = True  # or else that of another version of Python, which is nearly the same

    @classmethod
    def of(
        cls,
        model: LanguageModel | str | Path,
        make: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> TrainingText:
        """The training text of a model, or of the run or the saved model in a folder, as it lies in the
        cache; the standard library, for a model of that. With `make` the token stream of a run is made
        again from files of this disk if it is gone. Nothing is fetched.

        Raises UserError that says why the text is not to be had.
        """
        if isinstance(model, str | Path):
            from lm.saving import read_json  # it imports torch

            folder = Path(model).expanduser()
            facts = read_json(folder / "config.json", folder)
            tokenizer = Tokenizer.load(folder / "tokenizer.json")
        else:
            folder, facts, tokenizer = None, model.facts, model.tokenizer
        found = find_written(folder, facts, tokenizer, make, progress)
        return cls(found.name, found.text, found.exact)

    def copied_spans(self, text: str, least: int = 30) -> list[tuple[int, int]]:
        """The spans (start, end) of `text` of at least so many characters that stand in one document of
        the training text, word for word, and cannot be made longer. Raises UserError."""
        return self.search(text, least).spans

    def search(self, text: str, least: int = 30, seconds: float | None = None) -> Found:
        """The same with an example of each, after `seconds` with what was found until then. Raises
        UserError if `least` is below 23."""
        if least < LEAST:
            raise UserError(f"copies are looked for from {LEAST} characters on, not from {least}.")
        raw = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        begins = np.append(character_starts(raw), len(raw))
        if len(text) < least:
            return Found([], 1.0)
        # The bytes of the shortest span: characters have up to four.
        size = int((begins[least:] - begins[:-least]).min())
        end = time.monotonic() + seconds if seconds is not None else None
        search = _Search(self.text, raw, size, lambda: end is not None and time.monotonic() > end)
        spans = search.all_spans()
        starts = np.searchsorted(begins, [s for s, _, _ in spans])  # of the characters that are whole
        ends = np.searchsorted(begins, [e for _, e, _ in spans], side="right") - 1
        copies = [
            Copy(int(first), int(last), int(place + begins[first] - start))
            for first, last, (start, _, place) in zip(starts, ends, spans, strict=True)
            if last - first >= least
        ]
        return Found(_longest(copies), search.searched)

    def around(self, copy: Copy, text: str, characters: int = 80) -> tuple[str, str]:
        """What stands before and after a copy that was found in `text`, in the same document."""
        end = copy.place + len(text[copy.start : copy.end].encode())
        before = self.text[max(0, copy.place - 4 * characters) : copy.place].tobytes()
        after = self.text[end : end + 4 * characters].tobytes()
        before, after = before.replace(UNKNOWN, SEPARATOR), after.replace(UNKNOWN, SEPARATOR)
        before, after = before.rpartition(SEPARATOR)[2], after.partition(SEPARATOR)[0]
        return before.decode(errors="ignore")[-characters:], after.decode(errors="ignore")[:characters]


class CopiesOfGrowing:
    """The copies in a text that grows, or changes near its end: only what is new is looked for."""

    def __init__(self, training: TrainingText, least: int = 30):
        self._training, self._least = training, least
        self._text, self._found = "", Found([], 1.0)

    def of(self, text: str, seconds: float | None = None) -> Found:
        """The copies in `text`, as `TrainingText.search` finds them."""
        same = _same_beginning(self._text, text) if self._found.searched == 1 else 0
        # A copy that reached the change may go on behind it now. Any other that ends there begins less
        # than the least length before it: else what lies before the change would be a copy already.
        kept = [copy for copy in self._found.copies if copy.end < same]
        others = [copy.start for copy in self._found.copies[len(kept) :] if copy.start < same]
        begin = max(0, min([same - self._least + 1, *others]))
        new = self._training.search(text[begin:], self._least, seconds)
        moved = [replace(copy, start=copy.start + begin, end=copy.end + begin) for copy in new.copies]
        self._text, self._found = text, Found(_longest(kept + moved), new.searched)
        return self._found


class _Search:
    """One search for the grams of a text, `size` bytes each."""

    def __init__(self, training: np.ndarray, raw: np.ndarray, size: int, late: Callable[[], bool]):
        self._training, self._size, self._late = training, size, late
        self._given = np.pad(raw, MARGIN, constant_values=_NOTHING)
        self._offsets = sorted({0, 8, min(16, size - 8), size - 8})
        hashes = self._hashes(raw, np.arange(len(raw) - size + 1))
        self._grams, self._gram_at = np.unique(hashes, return_inverse=True)  # by place in the given text
        pairs = self._hashes(raw, np.arange(len(raw) - 15), offsets=(0, 8))
        bits = min((256 * len(pairs)).bit_length(), 22)
        self._shift = np.uint64(64 - bits)
        self._is_given = np.zeros(1 << bits, bool)
        self._is_given[pairs >> self._shift] = True
        # For each byte of the given text where the longest span that begins there ends, and an example.
        self._ends, self._places = np.zeros((2, len(raw)), np.int64)
        self.searched = 0.0

    def all_spans(self) -> list[list[int]]:
        """[start, end, place] of the longest spans in bytes, some of them inside others."""
        words = self._training.view(np.uint64)
        waiting: list[np.ndarray] = []
        for begin in range(0, len(words) - 1, _WORDS):
            here = words[begin : begin + _WORDS + 1]
            hashes = here[:-1] * _FACTORS[0]
            hashes += here[1:] * _FACTORS[1]
            hashes >>= self._shift
            waiting.append(8 * (begin + np.flatnonzero(self._is_given[hashes])))
            end = begin + len(here) - 1
            is_last = end == len(words) - 1
            full = len(waiting) >= _TOGETHER or 8 * sum(map(len, waiting)) >= _MOST_PLACES
            if full or is_last or self._late():
                self._look_at(np.concatenate(waiting))
                if self._late():
                    break
                self.searched, waiting = end / (len(words) - 1), []
        starts = np.flatnonzero(self._ends)
        return np.stack([starts, self._ends[starts], self._places[starts]], axis=1).tolist()

    def _look_at(self, hits: np.ndarray) -> None:
        """Find the longest spans whose first multiple of 8 in the training text is one of `hits`."""
        places, grams = self._places_of_grams(hits)
        bounds = np.searchsorted(grams, np.arange(len(self._grams) + 1))
        # A span that could begin earlier is known already. So only those places count before which
        # stands another byte than before the gram in the given text; for most grams there are none.
        before = self._training[places - 1]
        filled = np.flatnonzero(np.diff(bounds))
        lowest, highest = np.full((2, len(self._grams)), -1, np.int16)
        if len(filled):
            lowest[filled] = np.minimum.reduceat(before, bounds[filled])
            highest[filled] = np.maximum.reduceat(before, bounds[filled])
        low, high = lowest[self._gram_at], highest[self._gram_at]
        given = self._given[MARGIN - 1 :][: len(self._gram_at)]
        known, end = np.maximum.accumulate(self._ends), 0
        others: dict[tuple[int, int], np.ndarray] = {}
        for at in np.flatnonzero((low >= 0) & ~((low == given) & (high == given))).tolist():
            if self._late():
                return
            end = max(end, int(known[at]))
            gram, byte = int(self._gram_at[at]), int(given[at])
            if (gram, byte) not in others:
                here = slice(bounds[gram], bounds[gram + 1])
                others[gram, byte] = places[here][before[here] != byte]
            length, place = self._longest_from(at, others[gram, byte], max(self._size, end + 1 - at))
            if length:
                end = at + length
                self._ends[at], self._places[at] = end, place

    def _places_of_grams(self, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the training text grams may begin whose first multiple of 8 is one of `hits`, and the
        numbers of the grams: both (places,), by the grams."""
        back = np.arange(7, -1, -1)
        # What begins far enough back reaches no further than this hit, all else must hold the next one.
        next_too = np.diff(hits, append=hits[-1:] + 8) == 8
        places = (hits[:, None] - back)[next_too[:, None] | (back > self._size - 24)]
        places = places[(places >= MARGIN) & (places <= len(self._training) - self._size)]
        hashes = self._hashes(self._training, places)
        grams = np.minimum(np.searchsorted(self._grams, hashes), len(self._grams) - 1)
        found = self._grams[grams] == hashes
        places, grams = places[found], grams[found]
        order = np.argsort(grams, kind="stable")
        return places[order], grams[order]

    def _longest_from(self, at: int, places: np.ndarray, least: int) -> tuple[int, int]:
        """How many bytes from `at` of the given text on stand at one of the places (places,) of the
        training text at most, and at which; 0 if they are fewer than `least`."""
        if at + least > len(self._ends):
            return 0, 0
        last = np.minimum(places + (least - 1), len(self._training) - 1)
        places = places[self._training[last] == self._given[MARGIN + at + least - 1]]
        windows = sliding_window_view(self._training, MARGIN)
        best, example = 0, 0
        for begin in range(0, len(places), _ROWS):
            rows, length = places[begin : begin + _ROWS], 0
            while True:
                wanted = self._given[MARGIN + at + length :][:MARGIN]
                same = windows[rows + length] == wanted
                whole = same.all(axis=1)
                if not whole.any():
                    break
                rows, length = rows[whole], length + MARGIN
            agree = same.argmin(axis=1)  # bytes until the first that differs
            furthest = int(agree.argmax())
            if length + agree[furthest] > best:
                best, example = length + int(agree[furthest]), int(rows[furthest])
                if at + best == len(self._ends):
                    break
        return (best, example) if best >= least else (0, 0)

    def _hashes(
        self, text: np.ndarray, places: np.ndarray, offsets: Iterable[int] | None = None
    ) -> np.ndarray:
        """A hash (places,) uint64 of the bytes at each place of a text: of words of 8 bytes at the
        offsets, which for a gram of up to 32 bytes are all of it."""
        windows = sliding_window_view(text, 8)
        offsets = self._offsets if offsets is None else offsets
        words = (windows[places + offset].view(np.uint64)[:, 0] for offset in offsets)
        total = np.zeros(len(places), np.uint64)
        for word, factor in zip(words, _FACTORS, strict=False):
            total += word * factor
        return total


def _longest(copies: list[Copy]) -> list[Copy]:
    """The copies that do not lie inside others, in order."""
    kept: list[Copy] = []
    for copy in sorted(copies, key=lambda copy: (copy.start, -copy.end)):
        if not kept or copy.end > kept[-1].end:
            kept.append(copy)
    return kept


def _same_beginning(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    if other.startswith(one):
        return len(one)
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
