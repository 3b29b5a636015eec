"""Running out of memory: the error names the settings to lower."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lm.config.schema import RunConfig
from lm.errors import UserError

# Phrases in the errors of torch and the libraries it calls, where they raise no specific type.
_SIGNS = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc")
_MANY_TYPES = 1000  # token types above which the decoder takes much of the memory


@contextmanager
def explaining_out_of_memory(
    config: RunConfig, vocab_size: int, saved: Callable[[], Path | None] = lambda: None
) -> Iterator[None]:
    """Raise UserError if the block runs out of memory. `saved` returns the run folder, if it has weights."""
    try:
        yield
    except Exception as error:
        if not _is_shortage(error):
            raise
        training, model = config.training, config.model
        settings = {
            "--batch-size": training.batch_size,
            "--bptt": training.bptt,
            "--hidden-size": model.hidden_size,
            "--layers": model.layers,
            "--vocab-size": vocab_size if vocab_size >= _MANY_TYPES else 1,
        }
        *named, last = (f"{flag} (now {value})" for flag, value in settings.items() if value != 1)
        lower = f"{', '.join(named)} or {last}" if named else last
        run = saved()
        kept = f" {run} has the best weights so far; --init-from {run} continues from them." if run else ""
        raise UserError(f"there is not enough memory: lower {lower}, or raise --accumulate.{kept}") from error


def _is_shortage(error: Exception) -> bool:
    """Whether an error means that CPU or GPU memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
