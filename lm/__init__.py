"""Recurrent language models: train them, sample from them, see what they think.

>>> import lm
>>> model = lm.load("runs/hamlet")
>>> for piece in model.stream("ROMEO:", max_new_tokens=400, temperature=0.8):
...     print(piece.text, end="", flush=True)
"""

from importlib import import_module

__version__ = "0.1.0"

# Names are resolved on first use, so that `python train.py --help` does not wait for torch.
_HOME_OF = {
    "load": "lm.language_model",
    "LanguageModel": "lm.language_model",
    "Piece": "lm.generation.text_generator",
    "Score": "lm.evaluation.losses",
    "Session": "lm.session",
    "UserError": "lm.errors",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lm' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
