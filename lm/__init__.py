"""Recurrent language models: train them, generate text, score text, and look inside.

>>> import lm
>>> model = lm.train("hamlet.txt", max_time="2m", out="runs/hamlet")
>>> model = lm.load("runs/hamlet")
>>> for piece in model.stream("HAMLET:", max_new_tokens=400, temperature=0.8):
...     print(piece.text, end="", flush=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lm.version import __version__ as __version__

if TYPE_CHECKING:
    from lm.errors import UserError as UserError
    from lm.evaluation.scores import Score as Score
    from lm.evaluation.validation import Validation as Validation
    from lm.generation.clamp import Clamp as Clamp
    from lm.generation.text_generator import Piece as Piece
    from lm.insight.surprisal import evaluate as evaluate, score_texts as score_texts
    from lm.language_model import LanguageModel as LanguageModel, load as load
    from lm.session import Session as Session
    from lm.training.train import train as train

# Imported on first use, so that `lm train --help` does not wait for torch.
_MODULES = {
    "Clamp": "lm.generation.clamp",
    "LanguageModel": "lm.language_model",
    "Piece": "lm.generation.text_generator",
    "Score": "lm.evaluation.scores",
    "Session": "lm.session",
    "UserError": "lm.errors",
    "Validation": "lm.evaluation.validation",
    "evaluate": "lm.insight.surprisal",
    "load": "lm.language_model",
    "score_texts": "lm.insight.surprisal",
    "train": "lm.training.train",
}

__all__ = sorted(_MODULES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if not TYPE_CHECKING:  # type checkers know the names from above, and should report any others

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'lm' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)
