"""Hugging Face `tokenizers`, the backend: reads a tokenizer.json, and turns failures into one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer as Backend
from tokenizers.processors import ByteLevel, PostProcessor, Sequence

from lm.errors import DataError, ModelError, UserError, one_line
from lm.tokenization.tokenizer_json import read_spec


def read_backend(path: Path, folder: Path) -> Backend:
    """The tokenizer in a tokenizer.json, which must be a file in `folder`. Raises ModelError if it is missing
    or broken."""
    try:
        return Backend.from_buffer(json.dumps(read_spec(path, folder)).encode())
    except UserError:
        raise
    except BaseException as error:
        _raise_unless_backend(error)
        raise ModelError(f"{path} is not a readable tokenizer: {one_line(error)}") from error


def without_added_tokens(spec: dict[str, Any] | None) -> PostProcessor | None:
    """The steps of a post-processor that only trim spaces from the spans of tokens, without those that add
    tokens."""
    steps = [] if spec is None else spec.get("processors", [spec])
    kept = [
        ByteLevel(add_prefix_space=step["add_prefix_space"], trim_offsets=step["trim_offsets"])
        for step in steps
        if step["type"] in ("ByteLevel", "RobertaProcessing")
    ]
    return Sequence(kept) if len(kept) > 1 else next(iter(kept), None)


def encode_batch(backend: Backend, texts: list[str], offsets: bool = False) -> list[Encoding]:
    """Encode `texts` without adding special tokens and, unlike `backend.encode`, without keeping all other
    threads waiting. Raises DataError if `tokenizers` fails on one of them.

    `offsets`: whether the result has the position of each token in its text, which takes longer.
    """
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    try:
        return encode(texts, add_special_tokens=False)
    except BaseException as error:
        _raise_unless_backend(error)
        if not isinstance(error, Exception):
            raise DataError(
                f"the tokenizer fails on this text ({one_line(error)}): choose another model."
            ) from error
        raise DataError(
            f"the tokenizer has no token for a part of this text ({one_line(error)}): add an unknown"
            " token to its vocabulary or choose another tokenizer."
        ) from error


def decoding_error(error: BaseException) -> ModelError:
    """The error to raise for one that `tokenizers` raises while it decodes tokens; raises any other again."""
    _raise_unless_backend(error)
    return ModelError(f"the tokenizer cannot decode its tokens: {one_line(error)}")


def _raise_unless_backend(error: BaseException) -> None:
    """Raise `error` unless it is one of `tokenizers`, which raises bare Exception, and PanicException, which
    is not an Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
