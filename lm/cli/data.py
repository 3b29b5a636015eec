"""Show or clear the cache of tokenized text.

lm data info                 list the token streams
lm data info shakespeare     full report of those that start with 'shakespeare'
lm data clear [NAME ...]     delete all streams, or those that start with NAME
"""

from __future__ import annotations

import argparse
import sys
import time

from lm.cli.parser import make_parser
from lm.console.wording import format_bytes
from lm.data.cache import PARTIAL, Entry, cache_folder, entries, remove
from lm.errors import DataError, UserError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The flags of the command that were given. Exits with status 2 if they are invalid."""
    parser = make_parser("data", __doc__ or "")
    actions = ("info", "clear")
    show_or_delete = "show the streams, or delete them"
    parser.add_argument("action", choices=actions, metavar="|".join(actions), help=show_or_delete)
    parser.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="the beginning of the name of a stream"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status. Raises UserError if no stream has a given name."""
    options = parse(arguments)
    if "" in options.names:  # with which every name begins
        raise UserError("NAME must not be empty: leave it out for all streams.")
    chosen = [e for e in entries() if not options.names or e.path.name.startswith(tuple(options.names))]
    for name in options.names:
        if not any(entry.path.name.startswith(name) for entry in chosen):
            raise UserError(f"no stream in {cache_folder()} has a name that starts with '{name}'.")
    if options.action == "clear":
        clear(chosen)
    elif options.names:
        show_details(chosen)
    else:
        show_list(chosen)
    return 0


def show_list(chosen: list[Entry]) -> None:
    """Print a line for each of the streams, and their total size."""
    width = max((len(entry.path.name) for entry in chosen), default=0)
    for entry in chosen:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(f"{entry.path.name:{width}}  {format_bytes(entry.size):>10}  last used {used}")
    print(f"{cache_folder()}: {format_bytes(sum(entry.size for entry in chosen))} in total")


def show_details(chosen: list[Entry]) -> None:
    """Print the full report of each of the streams."""
    from lm.data.corpus import read_corpus
    from lm.data.report import rows

    for entry in chosen:
        print(entry.path.name)
        facts = {}
        if not entry.path.name.endswith(PARTIAL):
            try:
                facts = rows(read_corpus(entry.path.name), full=True)
            except DataError as error:
                facts = {"Error": str(error)}
        for label, value in {**facts, "Size": format_bytes(entry.size), "Folder": str(entry.path)}.items():
            print(f"  {label:14}{value}")


def clear(chosen: list[Entry]) -> None:
    """Delete the streams, except those in use, and print how much space that has freed."""
    freed = 0
    for entry in chosen:
        if remove(entry.path):
            freed += entry.size
        else:
            print(f"{entry.path.name} is in use and was not deleted.", file=sys.stderr)
    print(f"{format_bytes(freed)} freed in {cache_folder()}")
