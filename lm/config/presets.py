"""Named recipes: `--preset NAME`. The command line and a file of settings win over a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lm.config.settings import did_you_mean
from lm.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A name's meaning, in a few words and in settings."""

    help: str
    settings: dict[str, Any]


PRESETS = {
    # Words are few and their vocabulary is large: tied vectors, some of which are left out at a time
    # (after Merity et al. 2017, arXiv:1708.02182). Measured on Penn Treebank: docs/recipes.md.
    "words": Preset(
        "words as tokens",
        {"tokenizer": "word", "tie": True, "embedding_size": 320, "embedding_dropout": 0.1},
    ),
    "readable": Preset(
        "one small layer, computed by the cells of lm/model/cells.py",
        {"cell_implementation": "reference", "layers": 1, "hidden_size": 128, "precision": "fp32"},
    ),
}


def preset(name: str) -> dict[str, Any]:
    """The settings of a named recipe. Raises UserError if there is none of that name."""
    if name not in PRESETS:
        raise UserError(
            f"--preset is one of {', '.join(PRESETS)}, not '{name}'{did_you_mean(name, PRESETS)}."
        )
    return PRESETS[name].settings


def describe() -> str:
    """The presets in one line of help."""
    return "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items())
