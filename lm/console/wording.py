"""Words that several messages and pages need."""

import difflib
from collections.abc import Iterable

PYTHON_LIBRARY = "the source code of Python's standard library"  # what `--dataset python` is


def plural(count: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a misspelled one resembles most, whatever the case; None if none is similar."""
    lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about a misspelled name: "; did you mean 'hidden_size'?", or only a period."""
    return suggesting(similar(name, known))


def suggesting(name: str | None) -> str:
    """The end of an error that suggests another name, if there is one."""
    return f"; did you mean '{name}'?" if name else "."


def format_bytes(size: float) -> str:
    """'93 bytes', '60 KB', '2.6 MB', '512 MB' or '3.2 GB'."""
    if size < 1e3:
        return f"{size:,.0f} bytes"
    if size < 1e6:
        return f"{size / 1e3:,.0f} KB"
    if size < 1e9:
        return f"{size / 1e6:,.1f} MB" if size < 9.95e6 else f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:,.1f} GB"
