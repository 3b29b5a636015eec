"""Files below folders, in globs and in archives: which are read, as which split, and which are left out."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lm.console.wording import plural, similar
from lm.data import archives
from lm.data.binary_files import binary_kind
from lm.data.compression import without_compression
from lm.data.split_names import by_split
from lm.errors import DataError, one_line
from lm.files.model_files import is_inside

TABLES = {
    **{".json": "json", ".jsonl": "json", ".ndjson": "json"},
    **{".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"},
}
_SAMPLE = 1 << 13  # bytes by which a binary file is recognized
_NAMED = 3  # files named in the report
# Files about a dataset rather than of it, if there are tables as well.
_ABOUT = re.compile(r"(readme|license|licence|notice|changelog|citation)([._-].*)?|.*\.md")
# Tables about a dataset rather than of it, if there are other files as well.
TABLES_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json", "state.json"}


@dataclass
class Listing:
    """The files of one text."""

    splits: dict[str, list[str]] = field(default_factory=dict)  # split -> files to read
    left_out: dict[str, list[str]] = field(default_factory=dict)  # why -> files that are not read

    def leave_out(self, why: str, files: Iterable[str]) -> None:
        """Remove files from the splits."""
        gone = set(files)
        if not gone:
            return
        splits = {split: [f for f in group if f not in gone] for split, group in self.splits.items()}
        self.splits = {split: group for split, group in splits.items() if group}
        self.left_out.setdefault(why, []).extend(sorted(gone))

    def row(self) -> str:
        """'2 for training (a.txt, b.txt), 1 for validation (c.txt); skipped 1 binary file (d.jpg)', or ''
        if there is only one file."""
        if sum(map(len, self.splits.values())) == 1 and not self.left_out:
            return ""
        uses = {"train": "for training", "validation": "for validation", "test": "for testing"}
        read = [
            _named(f"{len(group):,} " + uses.get(split, f"in '{split}'"), group)
            for split, group in self.splits.items()
        ]
        skipped = [_named(plural(len(group), f"{why} file"), group) for why, group in self.left_out.items()]
        return ", ".join(read) + (f"; skipped {', '.join(skipped)}" if skipped else "")

    def warnings(self) -> list[str]:
        """A warning if links lead to missing files."""
        if not (missing := self.left_out.get("missing")):
            return []
        links = _named(f"skipped {plural(len(missing), 'link')} to missing files", missing)
        return [f"{links}: fetch them, for example with `git annex get`, or delete the links."]


def files_below(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """All files in a folder and its subfolders, without hidden ones, and the links that are not followed:
    those "outside" lead out of it, and those "missing" to no file. Other links are followed once. Raises
    DataError if a folder cannot be read."""
    found: list[str] = []
    outside: list[str] = []
    for parent, folders, names in _walk(folder):
        visible = {n: os.path.join(parent, n) for n in (*folders, *names) if not n.startswith(".")}
        leaving = {name for name, path in visible.items() if _leaves(path, folder)}
        outside += (visible[name] for name in leaving)
        folders[:] = sorted(name for name in folders if name in visible and name not in leaving)
        paths = (visible[name] for name in names if name in visible and name not in leaving)
        found += paths
    files, missing = _existing(found)
    return files, {"outside": outside, "missing": missing}


def files_matching(pattern: str) -> tuple[list[str], dict[str, list[str]]]:
    """All files that match a glob, and the links that do, but lead to a "missing" file. Raises DataError if a
    folder below `**` cannot be read."""
    files, missing = _existing(_matching(pattern))
    return files, {"missing": missing}


def _matching(pattern: str) -> set[str]:
    """The paths that match a glob. Unlike in `glob.glob`, whose `**` follows a link that leads back again and
    again, each folder is entered once."""
    parts = re.split(r"[/\\]" if os.altsep else "/", pattern)
    if "**" not in parts:
        return set(glob.glob(pattern))
    first = parts.index("**")
    above = pattern[: sum(len(part) + 1 for part in parts[:first])]
    rest = os.sep.join(parts[first + 1 :])
    found: set[str] = set()
    for base in glob.glob(above) if above else [os.curdir]:
        for parent, folders, names in _walk(base):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = parent if above else os.path.relpath(parent)
            place = "" if place == os.curdir else place
            if rest:
                found |= _matching(os.path.join(glob.escape(place), rest))
            else:
                found |= {os.path.join(place, name) for name in names if not name.startswith(".")}
    return found


def _walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` that follows links, but enters no folder twice. Raises DataError if one cannot be read."""

    def fail(error: OSError) -> None:
        raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}.")

    visited = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        yield parent, folders, names


def is_dangling(path: str | Path) -> bool:
    """Whether a path is a link to a file that does not exist."""
    return os.path.islink(path) and not os.path.exists(path)


def list_files(files: list[str], root: str | None, skipped: Mapping[str, Iterable[str]]) -> Listing:
    """The files to read among `files`.

    With a `root`, files below it become splits by their names. Binary and empty files, files that another
    path leads to, and files about the others are left out; those `skipped`, by the reason, are already.
    """
    found = Listing({"train": files} if root is None else _by_split(root, files))
    for why, others in skipped.items():
        found.leave_out(why, others)
    found.leave_out("repeated", _repeated(files))
    texts = [f for group in found.splits.values() for f in group if kind_of(f) == "text"]
    not_text = {file: _why_not_text(file) for file in texts}
    for why in ("empty", "binary"):
        found.leave_out(why, (file for file in texts if not_text[file] == why))
    found.leave_out("other", _incidental([f for group in found.splits.values() for f in group]))
    return found


def suffix_of(file: str) -> str:
    """The end of a file's name that decides how it is read, such as ".tsv.gz"; "" if it is plain text."""
    name = archives.name_of(file).lower()
    stem, suffix = os.path.splitext(without_compression(name))
    return name.removeprefix(stem if suffix in {*TABLES, ".zip"} else stem + suffix)


def kind_of(file: str) -> str:
    """ "text", or the kind of table, judged by the file's name."""
    return TABLES.get(archives.suffix(file), "text")


def similar_path(path: Path) -> str | None:
    """The path that a misspelled one resembles most; None if no name in its folder is similar."""
    try:
        names = [name for name in os.listdir(path.parent) if not name.startswith(".")]
    except OSError:
        names = []
    near = similar(path.name, names, cutoff=0.75)  # the ending is often the same
    return str(path.parent / near) if near else None


def file_id(file: str) -> tuple[int, int, str] | None:
    """An id that all paths to the same file on this disk share; None if there is no such file."""
    member, path = archives.member_and_path(file)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, member


def standard_input_id() -> tuple[int, int, str] | None:
    """The `file_id` of the file that standard input is read from; None if it is a pipe or a terminal."""
    try:
        found = os.fstat(sys.stdin.fileno())
    except (OSError, ValueError):  # it was replaced by an object without a file
        return None
    return (found.st_dev, found.st_ino, "") if stat.S_ISREG(found.st_mode) else None


def _existing(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files among the paths, and the links to missing ones, both sorted."""
    paths = sorted(paths)
    return list(filter(os.path.isfile, paths)), list(filter(is_dangling, paths))


def _leaves(path: str, folder: Path) -> bool:
    """Whether a path is a link to something outside the folder."""
    return os.path.islink(path) and os.path.exists(path) and not is_inside(os.path.realpath(path), folder)


def _by_split(root: str, files: list[str]) -> dict[str, list[str]]:
    """Group files into splits by their names below `root`."""
    below = {}
    for file in files:
        member, path = archives.member_and_path(file)
        # Some programs on Windows write the names in an archive with backslashes.
        name = member.replace("\\", "/") if member else path.removeprefix(root).replace(os.sep, "/")
        below[name if name not in below else file] = file
    return {split: [below[name] for name in names] for split, names in by_split(below).items()}


def _repeated(files: list[str]) -> Iterator[str]:
    """The files that an earlier path has led to."""
    seen = set()
    for file in files:
        identity = file_id(file)
        if identity and identity in seen:
            yield file
        seen.add(identity)


def _why_not_text(file: str) -> str | None:
    """ "empty" or "binary", judged by the beginning of a file; None for text."""
    try:
        with archives.open_bytes(file) as opened:
            sample = opened.read(_SAMPLE)
    except Exception:  # each compression has its own errors; reading the file will raise it again
        return None
    return "empty" if not sample else "binary" if binary_kind(sample) else None


def _incidental(files: list[str]) -> list[str]:
    """The files that say something about the others, such as a README.md next to tables."""
    about = [file for file in files if _file_name(file) in TABLES_ABOUT]
    others = [file for file in files if _file_name(file) not in TABLES_ABOUT]
    texts = [file for file in others if kind_of(file) == "text"]
    if len(texts) < len(others) and all(_ABOUT.fullmatch(_file_name(file)) for file in texts):
        about += texts
    return about if len(about) < len(files) else []


def _file_name(file: str) -> str:
    return os.path.basename(archives.name_of(file)).lower()


def _named(what: str, files: list[str]) -> str:
    """'2 binary files (a.jpg, b.jpg)'."""
    names = ", ".join(one_line(os.path.basename(archives.name_of(file)), 80) for file in files[:_NAMED])
    return f"{what} ({names}{', …' if len(files) > _NAMED else ''})"
