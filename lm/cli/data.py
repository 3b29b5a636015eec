"""See and empty the cache of token streams.

lm data info                 what is in it
lm data info shakespeare     more of what begins so
lm data clear [NAME ...]     delete all, or what begins so
"""

from __future__ import annotations

import argparse
import sys
import time

from lm.cli.parser import make_parser
from lm.data.cache import Entry, cache_folder, entries, remove
from lm.errors import UserError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("data", __doc__ or "")
    parser.add_argument("action", choices=("info", "clear"))
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help="how names of streams begin")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    chosen = [e for e in entries() if not options.names or e.path.name.startswith(tuple(options.names))]
    for name in options.names:
        if not any(entry.path.name.startswith(name) for entry in chosen):
            raise UserError(f"nothing in {cache_folder()} begins with '{name}'.")
    if options.action == "clear":
        return clear(chosen)
    if options.names:
        return details(chosen)
    width = max((len(entry.path.name) for entry in chosen), default=0)
    for entry in chosen:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(f"{entry.path.name:{width}}  {megabytes(entry.size):>10}  last used {used}")
    print(f"{cache_folder()}: {megabytes(sum(entry.size for entry in chosen))} in all")
    return 0


def details(chosen: list[Entry]) -> int:
    from lm.data.corpus import cached_corpus
    from lm.data.report import rows

    for entry in chosen:
        print(entry.path.name)
        corpus = cached_corpus(entry.path.name) if (entry.path / "info.json").is_file() else None
        facts = rows(corpus, full=True) if corpus else {}
        for name, value in {**facts, "Size": megabytes(entry.size), "Folder": str(entry.path)}.items():
            print(f"  {name:12}{value}")
    return 0


def clear(chosen: list[Entry]) -> int:
    freed = 0
    for entry in chosen:
        if remove(entry.path):
            freed += entry.size
        else:
            print(f"{entry.path.name} is being made right now and stays.", file=sys.stderr)
    print(f"{megabytes(freed)} freed in {cache_folder()}")
    return 0


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
