"""The models as a person looks through them: a table, what is told of one, and one to take along.

Nothing here knows of Gradio. What the files of a model say is data: a card becomes HTML without scripts,
pictures or HTML of its own, and of a path on this computer only the last part is told.
"""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from lm import saving
from lm.errors import UserError
from lm.run_folder import Run

from ...jobs.job import has_finished
from ...registry import ModelRegistry

_TAKEN_ALONG = ("config.json", "model.safetensors", "tokenizer.json", "README.md")
_LARGEST_CARD = 200_000  # bytes
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_RECENT = 60.0  # seconds


@dataclass(frozen=True)
class Entry:
    """A model in the table; what its config.json does not tell is None or empty."""

    name: str
    cell: str
    layers: int | None
    hidden: int | None  # units of a layer
    backward: bool
    parameters: int | None
    tokenizer: str
    vocabulary: int | None
    dataset: str
    bits_per_character: float | None
    perplexity: float | None
    changed: float  # when its weights were written, in seconds since the epoch

    def matches(self, query: str) -> bool:
        """Whether each word of a query is in the model's name or in what is told of it."""
        about = " ".join(str(value) for value in (self.name, self.cell, self.tokenizer, self.dataset)).lower()
        about += f" {self.layers}×{self.hidden} {self.layers} × {self.hidden}"
        about += " backward right to left" if self.backward else ""
        return all(word in about for word in query.lower().split())


def entries(models: ModelRegistry, query: str = "") -> list[Entry]:
    """The models that match a query, in the order in which `ModelRegistry` finds them."""
    found = (_entry(name, folder) for name, folder in models.folders().items())
    return [entry for entry in found if entry and entry.matches(query)]


def card(folder: Path) -> str:
    """README.md of a model as HTML, without scripts, pictures and HTML of its own; empty if there is none."""
    try:
        with open(folder / "README.md", "rb") as file:
            text = file.read(_LARGEST_CARD).decode("utf-8", "replace")
    except OSError:
        return ""
    text = _FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.add_render_rule("link_open", _link)
    return markdown.render(_without_paths(text, _dataset(folder)))


def _link(renderer: RendererHTML, tokens: Sequence[Token], number: int, *_: Any) -> str:
    """A link leads out of the page, so it opens beside it and tells the other side nothing of it."""
    tokens[number].attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
    return renderer.renderToken(tokens, number, *_)


def pack(folder: Path, into: Path) -> Path:
    """A zip file, made in the folder `into`, of what is needed to use a model elsewhere. Raises UserError."""
    path, inside = into / f"{folder.name}.zip", folder.name
    dataset = _dataset(folder)
    try:
        # Weights are noise to a compressor.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
            for name in _TAKEN_ALONG:
                if name.endswith((".md", "config.json")) and (folder / name).is_file():
                    text = (folder / name).read_text(encoding="utf-8", errors="replace")
                    packed.writestr(f"{inside}/{name}", _without_paths(text, dataset))
                elif (folder / name).is_file():
                    packed.write(folder / name, f"{inside}/{name}")
    except OSError as error:
        raise UserError(f"'{folder.name}' cannot be packed: {error.strerror}.") from error
    return path


def being_trained(folder: Path) -> bool:
    """Whether a run seems to go on: it has not spent its budget, and wrote something within a minute."""
    run = Run(folder)
    if not run.training.is_dir() or has_finished(run):
        return False
    now = time.time()
    return any(now - _changed(path) < _RECENT for path in (run.metrics, run.checkpoint, run.config))


def _entry(name: str, folder: Path) -> Entry | None:
    try:
        config = saving.read_json(folder / "config.json", folder)
    except UserError:  # it has just been deleted
        return None
    model, trained, figures = (
        value if isinstance(value := config.get(key), dict) else {}
        for key in ("model", "trained_on", "validation")
    )
    return Entry(
        name=name,
        cell=str(model.get("cell", "")).upper(),
        layers=_whole(model.get("layers")),
        hidden=_whole(model.get("hidden_size")),
        backward=model.get("direction") == "backward",
        parameters=_whole(config.get("parameters")),
        tokenizer=str(config.get("tokenizer", "")),
        vocabulary=_whole(config.get("vocab_size")),
        dataset=_short(str(trained.get("dataset", ""))),
        bits_per_character=_number(figures.get("bits_per_character")),
        perplexity=_number(figures.get("perplexity")),
        changed=_changed(folder / "model.safetensors"),
    )


def _dataset(folder: Path) -> str:
    try:
        trained = saving.read_json(folder / "config.json", folder).get("trained_on")
    except UserError:
        return ""
    return str(trained.get("dataset", "")) if isinstance(trained, dict) else ""


def _last_part(dataset: str) -> str:
    """A Hub id as it is; of a path on this computer only the last part."""
    path = PurePath(dataset)
    return path.name if path.is_absolute() else dataset


def _short(dataset: str) -> str:
    """A Hub id as it is; of what is a path for sure only the last part, for there is little room."""
    return PurePath(dataset).name if dataset.startswith((".", "~", "/")) else _last_part(dataset)


def _without_paths(text: str, dataset: str) -> str:
    """A text of a model's folder in which the text that it was trained on has only its last part."""
    short = _last_part(dataset)
    if short == dataset or not short:
        return text
    quoted = json.dumps(dataset, ensure_ascii=False)[1:-1]
    return text.replace(quoted, json.dumps(short, ensure_ascii=False)[1:-1]).replace(dataset, short)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
