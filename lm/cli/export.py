"""Export a model to a file that other programs run without lm.

lm export runs/hamlet hamlet.onnx                   ONNX, for onnxruntime
lm export runs/hamlet hamlet.html                   a page that works offline
lm export runs/hamlet hamlet.html --precision int8  smaller and less exact
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lm.cli.parser import MODEL, make_parser
from lm.console.escaping import printable
from lm.console.wording import format_bytes
from lm.export import FORMATS, exporter
from lm.files.atomic import check_output
from lm.files.paths import expanded

_LARGE_PAGE = 100_000_000  # bytes


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of the command that were given. Exits with status 2 if they are invalid."""
    parser = make_parser("export", __doc__ or "")
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL)
    add("file", metavar="FILE", help=f"where to write; the suffix is the format: {' or '.join(FORMATS)}")
    choices = list(dict.fromkeys(p for format in FORMATS.values() for p in format.precisions))
    by_format = ", ".join(f"{format.precisions[0]} for {suffix}" for suffix, format in FORMATS.items())
    help = f"precision of the weights in the file (default: auto, which is {by_format})"
    add("--precision", choices=("auto", *choices), default="auto", help=help)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Raises UserError."""
    options = parse(arguments)
    write = exporter(options.file, options.precision)
    check_output(options.file)
    from lm.language_model import load  # imports torch, for which --help should not wait

    write(load(options.model, "cpu"))
    path = expanded(options.file)
    size = path.stat().st_size
    print(f"{printable(options.file)}: {format_bytes(size)}")
    if path.suffix.lower() == ".html" and size > _LARGE_PAGE:
        print(
            "warning: phones may lack the memory for a page of this size; a smaller model or --precision int8"
            " makes a smaller page.",
            file=sys.stderr,
        )
    return 0
