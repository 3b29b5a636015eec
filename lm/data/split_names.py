"""Which split a file belongs to: whole names such as train.txt say so, words within a name do not."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from lm.data.compression import without_compression

_SPLITS = {  # as in the `datasets` library
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_NAME = "|".join(_SPLITS)
_SHARD = re.compile(rf"(?:(?:.*[-_.])?({_NAME})-\d{{5}}-of-\d{{5}}|({_NAME})-\d+)")
_SERIES = re.compile(rf"(.+)\.({_NAME})")  # ptb.train, next to ptb.valid
_WORD = re.compile(rf"(?<![^-._ 0-9])({_NAME})(?![^-._ 0-9])")

# Pattern of a name -> the splits of the files that have it.
_Patterns = defaultdict[str, set[str]]


def by_split(names: Iterable[str]) -> dict[str, list[str]]:
    """Group files into splits by their paths below a folder: train.txt, a-train-00000-of-00002.parquet,
    test/a.txt, and ptb.train.txt next to ptb.valid.txt."""
    names = list(names)
    series = _series(names)
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        splits[_split_of(name, series) or "train"].append(name)
    return dict(splits)


def by_split_on_hub(names: Iterable[str]) -> tuple[dict[str, list[str]], bool]:
    """Group the files of a Hub dataset into splits, and whether a name has the word of a split by chance.

    There, a word within a name also counts if another file has the word of another split in its place:
    train_en.json and test_en.json, but not the-test-of-time.txt.
    """
    names = list(names)
    series, words = _series(names), _Patterns(set)
    for name in names:
        for pattern, split in _words(name):
            words[pattern].add(split)
    splits: defaultdict[str, list[str]] = defaultdict(list)
    misleading = False
    for name in names:
        within = list(_words(name))
        paired = (split for pattern, split in within if len(words[pattern]) > 1)
        found = _split_of(name, series) or next(paired, None)
        misleading |= bool(within) and found is None
        splits[found or "train"].append(name)
    return dict(splits), misleading


def _split_of(name: str, series: _Patterns) -> str | None:
    stem = _stem(name)
    if stem in _SPLITS:
        return _SPLITS[stem]
    if match := _SHARD.fullmatch(stem):
        return _SPLITS[match[1] or match[2]]
    if (match := _SERIES.fullmatch(stem)) and len(series[_prefix(name, match)]) > 1:
        return _SPLITS[match[2]]
    folders = name.lower().split("/")[:-1]
    return next((_SPLITS[folder] for folder in reversed(folders) if folder in _SPLITS), None)


def _series(names: Iterable[str]) -> _Patterns:
    """The splits of the files that have the same name but for the split at its end."""
    found = _Patterns(set)
    for name in names:
        if match := _SERIES.fullmatch(_stem(name)):
            found[_prefix(name, match)].add(_SPLITS[match[2]])
    return found


def _words(name: str) -> Iterator[tuple[str, str]]:
    """Each word of a split in the name of a file or a folder: the name without it and without numbers, and
    the split."""
    for part in reversed([*name.lower().split("/")[:-1], _stem(name)]):
        for match in _WORD.finditer(part):
            pattern = f"{part[: match.start()]}*{part[match.end() :]}"
            yield re.sub(r"\d+", "0", pattern), _SPLITS[match[1]]


def _stem(name: str) -> str:
    return os.path.splitext(without_compression(name.rpartition("/")[2]))[0].lower()


def _prefix(name: str, match: re.Match[str]) -> str:
    return f"{name.rpartition('/')[0]}/{match[1]}"
