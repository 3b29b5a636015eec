"""Recurrent language models: train them, generate text, score text, and look inside.

>>> import lm
>>> model = lm.load("runs/hamlet")
>>> for piece in model.stream("ROMEO:", max_new_tokens=400, temperature=0.8):
...     print(piece.text, end="", flush=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm.errors import UserError as UserError
    from lm.evaluation.losses import Score as Score
    from lm.generation.text_generator import Piece as Piece
    from lm.language_model import LanguageModel as LanguageModel, load as load
    from lm.session import Session as Session

__version__ = "0.1.0"

# Imported on first use, so that `lm train --help` does not wait for torch.
_MODULES = {
    "LanguageModel": "lm.language_model",
    "Piece": "lm.generation.text_generator",
    "Score": "lm.evaluation.losses",
    "Session": "lm.session",
    "UserError": "lm.errors",
    "load": "lm.language_model",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lm' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
