"""Exports a model to a file that other programs run without lm."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm.errors import UserError
from lm.files.paths import expanded

if TYPE_CHECKING:
    from lm.language_model import LanguageModel


class Format(NamedTuple):
    """A kind of exported file."""

    module: str
    function: str  # function(model, path, precision) of the module writes the file
    precisions: tuple[str, ...]  # of the weights in the file; "auto" is the first


FORMATS = {
    ".onnx": Format("lm.export.onnx", "write_onnx", ("fp32", "int8")),
    ".html": Format("lm.export.page", "write_page", ("fp16", "bf16", "int8")),
}


def export(model: LanguageModel, path: str | Path, precision: str = "auto") -> None:
    """Write a model to a file, whose suffix names the format.

    Args:
        model: a model. Of an ensemble, export the models.
        path: where to write; `.onnx` is ONNX, `.html` a web page that generates text.
        precision: that of the weights in the file: "fp32" or "int8" for ONNX; "fp16", "bf16" or "int8" for a
            page; or "auto", the first of these.

    Raises UserError for another suffix or precision, an ensemble, a model that is too large for the format, a
    file that cannot be written, or if a package is missing.
    """
    exporter(path, precision)(model)


def exporter(path: str | Path, precision: str = "auto") -> Callable[[LanguageModel], None]:
    """The function that writes a model to `path`; see `export`. Raises UserError if no model could be."""
    path = expanded(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot export to {path}: name a file that ends in {' or '.join(FORMATS)}.")
    format = FORMATS[path.suffix.lower()]
    if precision not in ("auto", *format.precisions):
        names = " or ".join(format.precisions)
        raise UserError(f"{path.suffix} files cannot have {precision} weights: choose {names}.")
    chosen = format.precisions[0] if precision == "auto" else precision
    write = getattr(import_module(format.module), format.function)
    return lambda model: write(model, path, chosen)
