"""The memory that training takes, and running out of it: the error names the settings to lower."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from lm.config.resolved import NetworkConfig
from lm.config.schema import ModelConfig, RunConfig
from lm.console.invocation import quoted
from lm.errors import UserError
from lm.model.cells import CELLS
from lm.model.size import parameter_count
from lm.tokenization.vocabulary import KINDS
from lm.training.auto import CPU_STREAMS, SIZES, WINDOW, embedding_size

# Phrases in the errors of torch and the libraries it calls, where they raise no specific type.
_SIGNS = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc"),
    # of sizes that no memory has
    *("calculation overflowed", "possible overflow", "overflow when unpacking", "array is too big"),
    "maximum allowed dimension",
)
_MANY_TYPES = 1000  # token types above which embedding and decoder are a large part of the network
_MUCH = 0.25  # of the rest: less is not worth mentioning
_NUMBERS_PER_WEIGHT = 7  # the weight, its gradient, two moments, and a copy of all but the gradient
_STORED_PER_UNIT = 4  # numbers that backpropagation stores per unit and step, in addition to the gates


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
        run = saved()
        kept = ""
        if run:
            kept = f" {run} has the best weights so far; --init-from {quoted(run)} continues from them."
        raise UserError(f"there is not enough memory: {_advice(config, vocab_size)}.{kept}") from error


def training_memory(config: RunConfig, vocab_size: int) -> tuple[int, int]:
    """About how many bytes training takes for the network (its weights with their gradients, moments and the
    copy that a rollback restores) and for what backpropagation stores for each unit and step. If the hidden
    size is `auto`, that of the smallest network."""
    model, training = smallest(config.model, vocab_size), config.training
    streams = CPU_STREAMS if training.batch_size == "auto" else training.batch_size
    tokens = streams * (WINDOW if training.bptt == "auto" else training.bptt) / training.accumulate
    stored = model.layers * model.hidden_size * (len(CELLS[model.cell].gates) + _STORED_PER_UNIT)
    return 4 * _NUMBERS_PER_WEIGHT * parameter_count(model, vocab_size), round(4 * tokens * stored)


def smallest(model: ModelConfig, vocab_size: int) -> NetworkConfig:
    """The smallest network that `auto` may choose."""
    hidden = SIZES[0] if model.hidden_size == "auto" else model.hidden_size
    embedding = embedding_size(vocab_size) if model.embedding_size == "auto" else model.embedding_size
    return NetworkConfig.of(replace(model, hidden_size=hidden, embedding_size=embedding))


def _advice(config: RunConfig, vocab_size: int) -> str:
    """The settings that make what takes much of the memory smaller."""
    training, model = config.training, config.model
    weights, windows = training_memory(config, vocab_size)
    settings: dict[str, object] = {}
    others = []
    if windows >= _MUCH * weights:
        settings |= {"--batch-size": training.batch_size, "--bptt": training.bptt}
        others.append("raise --accumulate")
    if weights >= _MUCH * windows and vocab_size >= _MANY_TYPES:
        if config.data.tokenizer in KINDS:
            settings["--vocab-size"] = f"{vocab_size:,}"
        settings["--embedding-size"] = model.embedding_size
        if not model.tie:
            others.append("use --tie")
    network = smallest(model, vocab_size)
    if network.embedding_size > network.hidden_size:
        settings["--embedding-size"] = model.embedding_size
    settings |= {"--hidden-size": model.hidden_size, "--layers": model.layers}
    *named, last = (f"{flag} (now {value})" for flag, value in settings.items() if value != 1)
    lower = f"{', '.join(named)} or {last}" if named else last
    return ", or ".join([f"lower {lower}", *others])


def _is_shortage(error: Exception) -> bool:
    """Whether an error means that CPU or GPU memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    kinds = (RuntimeError, TypeError, ValueError)
    return isinstance(error, kinds) and any(sign in str(error).lower() for sign in _SIGNS)
