"""The warning of `lm generate` about text that the vocabulary lacks."""

from __future__ import annotations

import sys

from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown


def warn_about_unknown_text(model: LanguageModel, text: str, unknown: str) -> None:
    """Warn about what the vocabulary lacks of a text to continue, unless that is an error."""
    missing = describe_unknown(model.tokenizer, text) if unknown != "error" else ""
    if missing:
        action = "replaced by <unk>" if unknown == "replace" else "skipped"
        print(f"warning: the model does not know {missing}; {action}.", file=sys.stderr)
