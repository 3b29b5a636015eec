"""The token that a model reads before a text, and the tokens that it never generates."""

from __future__ import annotations

from typing import Any

from lm.tokenization.tokenizer import Tokenizer


def is_single_document(facts: dict[str, Any]) -> bool:
    """Whether a model with this config.json was trained on a single document.

    Documents are separated by <eos>. A model trained on a single document has never seen it: its texts start
    at the next best position, a line break, and never end. With `streaming`, <eos> precedes every document,
    also the first one and each repetition.
    """
    trained_on = facts.get("trained_on") or {}
    streamed = (trained_on.get("settings") or {}).get("streaming", False)
    return trained_on.get("documents") == 1 and not streamed


def start_token(tokenizer: Tokenizer, single_document: bool) -> int:
    """The token that precedes every text."""
    newline: list[int] = tokenizer.encode("\n", continues=True).tolist() if single_document else []
    return newline[0] if len(newline) == 1 and newline[0] != tokenizer.unk else tokenizer.eos


def suppressed_tokens(tokenizer: Tokenizer, single_document: bool) -> list[int]:
    """The tokens that are never generated."""
    end = tokenizer.end if single_document else None
    return [token for token in (tokenizer.unk, end) if token is not None]
