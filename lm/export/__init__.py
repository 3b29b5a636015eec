"""Exports a model to a file that other programs run without lm."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm.errors import UserError

if TYPE_CHECKING:
    from lm.language_model import LanguageModel


class Format(NamedTuple):
    """A kind of exported file."""

    module: str
    function: str  # function(model, path, precision) of the module writes the file
    precisions: tuple[str, ...]  # of the weights in the file; "auto" is the first


FORMATS = {".onnx": Format("lm.export.onnx", "write_onnx", ("fp32", "int8"))}


def export(model: LanguageModel, path: str | Path, precision: str = "auto") -> None:
    """Write `model` to the file `path`, whose suffix names the format: model.onnx for ONNX.

    `precision` is that of the weights in the file. "auto" is the best for the format: fp32 for ONNX, which
    also supports int8.

    Raises UserError for another suffix or precision, for a folder that does not exist, for an ensemble, and
    if a package is missing that writes the format.
    """
    path = Path(path).expanduser()
    chosen = format_of(path)
    write = getattr(import_module(chosen.module), chosen.function)
    write(model, path, resolved(precision, path))


def format_of(path: Path) -> Format:
    """The format that the suffix of a file names. Raises UserError if there is none."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot export to {path}: name a file that ends in {' or '.join(FORMATS)}.")
    return FORMATS[path.suffix.lower()]


def resolved(precision: str, path: Path) -> str:
    """The precision of the weights in a file. Raises UserError if its format does not have it."""
    supported = format_of(path).precisions
    if precision not in ("auto", *supported):
        names = " or ".join(supported)
        raise UserError(f"cannot export to {path} with {precision} weights: choose {names}.")
    return supported[0] if precision == "auto" else precision
