"""Named recipes (`--preset NAME`), which a settings file and the command line override."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lm.console.wording import did_you_mean
from lm.errors import UserError


@dataclass(frozen=True)
class Preset:
    """Settings with a short description."""

    help: str
    settings: dict[str, Any]


PRESETS = {
    # A word vocabulary is large and most words are rare: tied weights and embedding dropout
    # (after Merity et al. 2017, arXiv:1708.02182). Measured on Penn Treebank: docs/benchmarks.md.
    "words": Preset(
        "word-level model",
        {"tokenizer": "word", "tie": True, "embedding_size": 320, "embedding_dropout": 0.1},
    ),
    "readable": Preset(
        "one small layer, computed by the cells of lm/model/cells.py",
        {"cell_implementation": "reference", "layers": 1, "hidden_size": 128, "precision": "fp32"},
    ),
}


def preset(name: str) -> dict[str, Any]:
    """The settings of a named recipe. Raises UserError if the name is unknown."""
    if name not in PRESETS:
        raise UserError(
            f"--preset must be one of {', '.join(PRESETS)}, got '{name}'{did_you_mean(name, PRESETS)}"
        )
    return PRESETS[name].settings


def describe() -> str:
    """The presets in one line of help."""
    return " or ".join(f"{name} ({preset.help})" for name, preset in PRESETS.items())
