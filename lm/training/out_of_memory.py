"""Running out of memory, told as the settings that one can lower."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lm.config.schema import RunConfig
from lm.errors import UserError

# What torch and the libraries below it say where they raise no error of a kind of its own.
_SIGNS = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc")
_MANY_TYPES = 1000  # token types from which on the decoder takes a good part of the memory


@contextmanager
def telling_what_to_lower(
    config: RunConfig, vocab_size: int, saved: Callable[[], Path | None] = lambda: None
) -> Iterator[None]:
    """Raise UserError where the block runs out of memory; `saved` tells of a run that holds weights."""
    try:
        yield
    except Exception as error:
        if not _is_shortage(error):
            raise
        training, model = config.training, config.model
        settings = [("--batch-size", training.batch_size), ("--bptt", training.bptt)]
        settings += [("--hidden-size", model.hidden_size), ("--layers", model.layers)]
        if vocab_size >= _MANY_TYPES:
            settings.append(("--vocab-size", vocab_size))
        *named, last = (f"{flag} (now {value})" for flag, value in settings if value > 1)
        lower = f"{', '.join(named)} or {last}" if named else last
        run = saved()
        kept = f" {run} keeps the best weights so far; --init-from {run} goes on from them." if run else ""
        raise UserError(f"there is not enough memory: lower {lower}, or raise --accumulate.{kept}") from error


def _is_shortage(error: Exception) -> bool:
    """Whether an error tells that the memory of the CPU or of a GPU was not enough."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
