"""Warnings of `lm generate` and `lm evaluate` about text that the vocabulary lacks."""

from __future__ import annotations

import sys

from lm.console.wording import plural
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import Tokenizer, describe_unknown


def warn_about_unknown_text(model: LanguageModel, text: str, unknown: str) -> None:
    """Warn about what the vocabulary lacks of a text to continue, unless that is an error."""
    missing = describe_unknown(model.tokenizer, text) if unknown != "error" else ""
    if missing:
        action = "replaced by <unk>" if unknown == "replace" else "skipped"
        print(f"warning: the model does not know {missing}; {action}.", file=sys.stderr)


def warn_about_unknown_tokens(
    tokenizer: Tokenizer, text: bytes, unknown: int, tokens: int, effect: str, model: str = "model"
) -> None:
    """Print a warning if some of the tokens of a text are `unknown`, and which `effect` that has."""
    names = describe_unknown(tokenizer, text) if unknown else ""
    if names:
        print(
            f"warning: the {model} does not know {unknown:,} of the {plural(tokens, 'token')} ({names}),"
            f" {unknown / tokens:.1%}. {effect}",
            file=sys.stderr,
        )
