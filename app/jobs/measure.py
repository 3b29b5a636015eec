"""The process that measures what a training would take: see app/jobs/estimate.py.

    python -m app.jobs.measure < settings.json

It writes what it finds, a JSON object a line, as soon as it is known. It makes the token stream, which
stays in the cache for the training, builds the very trainer that train.py would build, and takes a few
real steps, for two seconds. So the figures hold for this machine, and the memory is what the process
really had. Where the network would not fit into the memory it is not tried; its needs are then told by
a formula.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from lm.config.schema import AUTOMATIC_DROPOUTS, DEFAULT_TIME, RunConfig
from lm.errors import UserError

from .estimate import Estimate, free_memory
from .runner import give_way

if TYPE_CHECKING:
    from lm.data.corpus import Corpus
    from lm.training.loop import Trainer

_MEASURED = 2.0  # seconds of steps that are timed
_LONGEST = 600  # seconds that this process lives at most, should nobody be left to end it
_WARM_UP = 2  # steps before that
_VALIDATIONS = 10  # in a training, if nothing else is said
_SAMPLE = 100  # tokens of a sample, about
_WRITTEN = 200e6  # bytes of a checkpoint that are written in a second, about
_DECIDED = ("hidden_size", "embedding_size", "lr", *AUTOMATIC_DROPOUTS)
_PROCESS = 400 << 20  # bytes of a process that trains a network without weights
_KEPT_A_UNIT = 4  # numbers beside the gates that are kept of each unit and step


def main() -> int:
    """Read settings from standard input, and write what is found out, a JSON object a line."""
    give_way(1000)  # where memory runs out, this process goes first
    signal.alarm(_LONGEST)
    config = RunConfig.from_flat(json.load(sys.stdin))
    try:
        from lm.data import report
        from lm.data.corpus import open_corpus

        corpus = open_corpus(config.data)
        _tell(rows=report.rows(corpus, full=True))
        from lm.training.out_of_memory import telling_what_to_lower

        with telling_what_to_lower(config, corpus.tokenizer.vocab_size):
            estimate = measure(config, corpus)
        from lm.training.auto import recurrent_weights

        decided = RunConfig.from_flat(config.flat() | estimate.decided)
        model = _at_least(decided, corpus.tokenizer.vocab_size).model
        _tell(
            warnings=report.warnings(corpus, recurrent_weights(model), model),
            estimate=asdict(estimate),
        )
    except UserError as error:
        _tell(error=str(error))
    return 0


def _tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def measure(config: RunConfig, corpus: Corpus, seconds: float = _MEASURED) -> Estimate:
    """What training on `corpus` would take, by taking its first steps for about so many seconds."""
    needed = memory_needed(config, corpus.tokenizer.vocab_size)
    free = free_memory()
    if config.model.hidden_size != "auto" and free is not None and needed > free:
        return _untried(config, corpus, needed)
    from lm.training.loop import build, step
    from lm.training.progress import Display

    trainer = build(config, corpus, Display(quiet=True))
    trainer.network.train()
    taken, begin = 0, 0.0
    while taken < _WARM_UP + 2 or time.perf_counter() - begin < seconds:
        if taken == _WARM_UP:
            begin = time.perf_counter()
        loss = step(trainer)
        trainer.progress.step += 1
        taken += 1
        loss.item()  # waits for the device
    return _estimate(trainer, (time.perf_counter() - begin) / (taken - _WARM_UP))


def _estimate(trainer: Trainer, a_step: float) -> Estimate:
    """From the seconds that a step takes."""
    config, corpus, windows = trainer.config, trainer.corpus, trainer.windows
    training = config.training
    between, end = _besides(trainer)
    steps = trainer.total_steps
    if steps:
        seconds = steps * a_step + min(_VALIDATIONS, steps) * between + end
    else:
        budget = training.max_time or DEFAULT_TIME
        # train.py keeps what scoring the whole text will take, but never more than half (loop.py).
        steps, seconds = _within(max(budget - end, budget / 2), a_step, between)
        seconds += end
    characters = corpus.train.counts.characters / corpus.train.counts.tokens
    flat = config.flat()
    return Estimate(
        parameters=trainer.network.parameter_count(),
        decided={name: flat[name] for name in _DECIDED},
        seconds=seconds,
        steps=steps,
        epochs=steps / windows.steps_per_epoch if windows.steps_per_epoch else None,
        steps_per_second=1 / a_step,
        characters_per_second=windows.tokens_per_step * characters / a_step,
        memory=_memory(trainer),
        disk=_disk(trainer),
        device=trainer.device.type,
    )


def _within(budget: float, a_step: float, between: float) -> tuple[int, float]:
    """The steps that are taken until so many seconds are over, and when that is, if each tenth of them
    ends with a validation."""
    steps, clock = 0, 0.0
    while clock < budget:
        tenth = budget / _VALIDATIONS * (int(_VALIDATIONS * clock / budget) + 1)
        taken = max(1, math.ceil((tenth - clock) / a_step))
        steps, clock = steps + taken, clock + taken * a_step + between
    return steps, clock


def _besides(trainer: Trainer) -> tuple[float, float]:
    """Seconds that a validation in between takes with its sample and its checkpoint, and those that
    scoring the whole validation text takes at the end."""
    from lm.evaluation.losses import validate
    from lm.language_model import LanguageModel

    corpus, limit = trainer.corpus, trainer.config.training.eval_tokens
    split, begin = corpus.validation, time.perf_counter()
    scored = validate(
        trainer.network, split.tokens, split.counts, corpus.tokenizer.eos, limit=limit,
        precision=trainer.precision,
    ).tokens  # fmt: skip
    validated = time.perf_counter()
    LanguageModel(trainer.network, corpus.tokenizer, {}).generate("", max_new_tokens=_SAMPLE, seed=1)
    sampled = time.perf_counter()
    whole = (validated - begin) * split.counts.tokens / max(scored, 1)
    return sampled - begin + _checkpoint(trainer) / _WRITTEN, whole


def _memory(trainer: Trainer) -> int:
    """Bytes that the training will have at most: what this process had, the copy to which the guard can
    go back, and a checkpoint on its way to the disk."""
    import torch

    held = _checkpoint(trainer)
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_reserved() + held
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) + 2 * held


def _disk(trainer: Trainer) -> int:
    """Bytes of the run's folder: the model and one checkpoint."""
    return 4 * trainer.network.parameter_count() + _checkpoint(trainer)


def _checkpoint(trainer: Trainer) -> int:
    """Bytes of the weights, the optimiser's moments and the recurrent state."""
    tensors = [*trainer.network.parameters(), *(trainer.state or ())]
    for moments in trainer.optimizer.state.values():
        tensors += [value for value in moments.values() if hasattr(value, "nbytes")]
    return sum(tensor.nbytes for tensor in tensors)


def memory_needed(config: RunConfig, vocab_size: int) -> int:
    """About how many bytes a training takes on a CPU: the process itself, six numbers a weight, and what
    back-propagation keeps of each unit and step. With an `auto` size it is that of the smallest network
    that there could be. On seven shapes, 2026-11-24, it was 0.8 to 1.4 of what the process had."""
    from lm.model.cells import CELLS
    from lm.training.auto import parameters

    config = _at_least(config, vocab_size)
    model, training = config.model, config.training
    tokens = training.batch_size * training.bptt / training.accumulate
    kept = model.layers * model.hidden_size * (CELLS[model.cell].gates + _KEPT_A_UNIT)
    return round(_PROCESS + 4 * (6 * parameters(model, vocab_size) + tokens * kept))


def _at_least(config: RunConfig, vocab_size: int) -> RunConfig:
    """The settings with the smallest network that `auto` may stand for."""
    from lm.training.auto import SIZES, _embedding_size as embedding_size

    model = config.model
    hidden = SIZES[0] if model.hidden_size == "auto" else model.hidden_size
    embedding = embedding_size(vocab_size) if model.embedding_size == "auto" else model.embedding_size
    return replace(config, model=replace(model, hidden_size=hidden, embedding_size=embedding))


def _untried(config: RunConfig, corpus: Corpus, memory: int) -> Estimate:
    """The estimate for a network that does not fit into the memory that is free."""
    from lm.training.auto import parameters

    vocab_size, flat = corpus.tokenizer.vocab_size, config.flat()
    weights = parameters(_at_least(config, vocab_size).model, vocab_size)
    return Estimate(
        parameters=weights,
        decided={name: flat[name] for name in _DECIDED},
        seconds=config.training.max_time, steps=config.training.steps, epochs=config.training.epochs,
        steps_per_second=None, characters_per_second=None, memory=memory, disk=16 * weights,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
