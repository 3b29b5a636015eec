"""The list of models, their model cards, and zip files of them to download.

A model's files are data: its card becomes HTML without scripts, images or HTML of its own, and of local paths
only the last component is shown or packed.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from lm.errors import UserError, one_line
from lm.export import exporter
from lm.files.model_files import open_file, read_bytes, read_json
from lm.files.tensor_files import tensor_shapes
from lm.language_model import load
from lm.storage.model_folder import FILES
from lm.storage.saving import without_paths
from lm.tokenization.tokenizer_json import MAX_SIZE

from ...registry import ModelRegistry
from ...ui.model_facts import section

_MAX_CARD_SIZE = 200_000  # bytes
_MAX_EXPORTED = 100_000_000  # weights
_MAX_PACKED_TEXT = 1 << 20  # bytes
_MAX_SHOWN = 200  # characters of a name in config.json
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A row of the list; values missing from config.json are None or empty."""

    name: str
    cell: str
    layers: int | None
    hidden_size: int | None
    backward: bool
    parameters: int | None
    tokenizer: str
    vocab_size: int | None
    dataset: str
    bits_per_character: float | None
    modified: float  # when the weights were written, in seconds since the epoch

    def matches(self, query: str) -> bool:
        """Whether the name and facts of the model contain every word of a query."""
        searched = " ".join((self.name, self.cell, self.tokenizer, self.dataset)).lower()
        searched += f" {self.layers}×{self.hidden_size} {self.layers} × {self.hidden_size}"
        searched += " backward right to left" if self.backward else ""
        return all(word in searched for word in query.lower().split())


def entries(models: ModelRegistry, query: str = "") -> list[Entry]:
    """The models that match a query, in the order of the registry."""
    found = (_entry(name, folder) for name, folder in models.folders().items())
    return [entry for entry in found if entry and entry.matches(query)]


def render_card(folder: Path) -> str:
    """The README.md of a model as HTML without scripts, images and HTML of its own; empty if it has none."""
    try:
        with open_file(folder / "README.md", folder) as file:
            text = file.read(_MAX_CARD_SIZE).decode("utf-8", "replace")
    except (UserError, OSError):
        return ""
    text = _FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.core.ruler.push("empty_headers", _mark_empty_headers)
    markdown.add_render_rule("link_open", _open_link)
    return markdown.render(_without_paths(text, _paths(folder)))


def _mark_empty_headers(state: StateCore) -> None:
    """Headers without text become plain cells: Markdown has no tables without headers, and HTML does."""
    tokens = state.tokens
    for opened, content, closed in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opened.type == "th_open" and not content.content:
            opened.tag = closed.tag = "td"


def _open_link(renderer: RendererHTML, tokens: Sequence[Token], index: int, *context: Any) -> str:
    """Links open in a new tab and send no referrer."""
    tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
    return renderer.renderToken(tokens, index, *context)


def pack(folder: Path, destination: Path) -> Path:
    """Write a zip file with the files needed to use a model elsewhere into the folder `destination`.

    Returns its path. Raises UserError if a file cannot be read or written, is a link to another folder, or
    does not contain weights.
    """
    path, names = destination / f"{folder.name}.zip", _paths(folder)
    tensor_shapes(folder / "model.safetensors")  # a damaged file may declare any size
    try:
        # Stored, because weights hardly compress.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
            for name in filter(lambda name: os.path.lexists(folder / name), FILES):
                if name.endswith((".md", "config.json")):
                    text = read_bytes(folder / name, folder, _MAX_PACKED_TEXT).decode("utf-8", "replace")
                    packed.writestr(_member(folder, name), _without_paths(text, names))
                else:
                    limit = MAX_SIZE if name == "tokenizer.json" else None
                    _pack_file(packed, folder, name, limit)
    except OSError as error:
        raise UserError(f"cannot pack '{folder.name}': {error.strerror}.") from error
    return path


def export_folder(folder: Path, path: Path) -> None:
    """Export the model in `folder` to `path`, whose suffix names the format.

    Raises UserError if the model cannot be exported, or is too large for a page that others use, too.
    """
    size = sum(math.prod(shape) for shape in tensor_shapes(folder / "model.safetensors").values())
    if size > _MAX_EXPORTED:
        raise UserError(
            f"'{folder.name}' has {size:,} weights, and this page exports at most {_MAX_EXPORTED:,}: use"
            " `lm export`."
        )
    exporter(path)(load(folder, "cpu"))


def _pack_file(packed: zipfile.ZipFile, folder: Path, name: str, limit: int | None) -> None:
    with (
        open_file(folder / name, folder, limit) as file,
        packed.open(_member(folder, name), "w", force_zip64=True) as copy,
    ):
        shutil.copyfileobj(file, copy, 1 << 20)


def _member(folder: Path, name: str) -> zipfile.ZipInfo:
    """A file in a zip file, with the time of that in the folder: lists of models are sorted by time."""
    member = zipfile.ZipInfo.from_file(folder / name, f"{folder.name}/{name}", strict_timestamps=False)
    member.external_attr = 0  # not its permissions
    return member


def _entry(name: str, folder: Path) -> Entry | None:
    try:
        config = read_json(folder / "config.json", folder)
    except UserError:  # it has just been deleted
        return None
    model, trained_on, metrics = (section(config, key) for key in ("model", "trained_on", "validation"))
    return Entry(
        name=name,
        cell=_text(model.get("cell")).upper(),
        layers=_int(model.get("layers")),
        hidden_size=_int(model.get("hidden_size")),
        backward=model.get("direction") == "backward",
        parameters=_int(config.get("parameters")),
        tokenizer=_text(config.get("tokenizer")),
        vocab_size=_int(config.get("vocab_size")),
        dataset=_text(without_paths(str(trained_on.get("dataset", "")))),
        bits_per_character=_float(metrics.get("bits_per_character")),
        modified=_modified(folder / "model.safetensors"),
    )


def _paths(folder: Path) -> dict[str, str]:
    """The paths in config.json, which earlier versions wrote there and into the card, with their names."""
    try:
        trained_on = section(read_json(folder / "config.json", folder), "trained_on")
    except UserError:
        return {}
    found = (trained_on.get(name) for name in ("dataset", "init_from"))
    return {text: name for text in found if isinstance(text, str) and (name := without_paths(text)) != text}


def _without_paths(text: str, names: dict[str, str]) -> str:
    """`text` with each path, plain or in JSON, replaced by its name."""
    for path, name in names.items():
        quoted, quoted_name = (json.dumps(value, ensure_ascii=False)[1:-1] for value in (path, name))
        text = text.replace(quoted, quoted_name).replace(path, name)
    return text


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _text(value: Any) -> str:
    return one_line(str(value), _MAX_SHOWN) if value else ""


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
