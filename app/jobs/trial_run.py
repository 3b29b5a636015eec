"""The process that takes a job's first steps to estimate the rest: see app/jobs/estimate.py.

    python -m app.jobs.trial_run < settings.json

It prints its results as JSON objects, one a line, as soon as they are known. It tokenizes the text (the
tokens stay in the cache for the training), builds the same trainer that `lm train` would build, and takes
real steps for two seconds. So the numbers hold for this machine, and the memory is what the process
actually used. A network that would not fit into memory is not tried; a formula then gives its needs.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict

import torch

from lm.config.schema import AUTOMATIC_DROPOUTS, RunConfig
from lm.data import report
from lm.data.corpus import Corpus, open_corpus
from lm.errors import UserError
from lm.evaluation.validation import validate
from lm.language_model import LanguageModel
from lm.model.size import parameter_count, recurrent_weights
from lm.training.finetune import with_model_settings
from lm.training.out_of_memory import explaining_out_of_memory, smallest, training_memory
from lm.training.setup import build_learner
from lm.training.state import Learner, scoring_time, total_steps
from lm.training.step import Step

from . import subprocess_call
from .estimate import Estimate, free_memory
from .runner import lower_priority

_TIMED = 2.0  # seconds of steps that are timed
_TIMEOUT = 600  # seconds after which this process ends even if its parent is gone
_WARMUP_STEPS = 2
_VALIDATIONS = 10  # per run, by default
_SAMPLE_TOKENS = 100  # roughly
_BYTES_PER_SECOND = 200e6  # at which a checkpoint is written, roughly
_SHAPE = ("cell", "layers", "hidden_size", "embedding_size")
_RESOLVED = (*_SHAPE, "batch_size", "bptt", "lr", *AUTOMATIC_DROPOUTS)
_PROCESS = 400 << 20  # bytes of a process that trains a network without weights


def main() -> int:
    """Read settings from standard input and print the results, one JSON object a line."""
    lower_priority(1000)  # where memory runs out, this process is killed first
    subprocess_call.end_after(_TIMEOUT)
    values = json.load(sys.stdin)
    try:
        config = RunConfig.from_flat(with_model_settings(values) if values.get("init_from") else values)
        corpus = open_corpus(config.data)
        subprocess_call.report(rows=report.rows(corpus, full=True))
        with explaining_out_of_memory(config, corpus.tokenizer.vocab_size):
            estimate = measure(config, corpus)
        model = RunConfig.from_flat(config.flat() | estimate.resolved).model
        weights = recurrent_weights(smallest(model, corpus.tokenizer.vocab_size))
        subprocess_call.report(warnings=report.warnings(corpus, weights, model), estimate=asdict(estimate))
    except UserError as error:
        subprocess_call.report(error=str(error))
    return 0


def measure(config: RunConfig, corpus: Corpus, seconds: float = _TIMED) -> Estimate:
    """Estimate what training on `corpus` would take, by taking its first steps for about `seconds`."""
    needed, free = memory_needed(config, corpus.tokenizer.vocab_size), free_memory()
    if config.model.hidden_size != "auto" and free is not None and needed > free:
        return _untried(config, corpus, needed)
    learner = build_learner(config, corpus)
    learner.network.train()
    step = Step(learner, notify=lambda line: None)
    taken, begin = 0, 0.0
    while taken < _WARMUP_STEPS + 2 or time.perf_counter() - begin < seconds:
        if taken == _WARMUP_STEPS:
            begin = time.perf_counter()
        loss = step(taken, learner.optimizer.rate)
        taken += 1
        loss.item()  # waits for the device
    return _estimate(learner, (time.perf_counter() - begin) / (taken - _WARMUP_STEPS))


def _estimate(learner: Learner, step_time: float) -> Estimate:
    """The estimate if a step takes `step_time` seconds."""
    config, corpus, windows = learner.config, learner.corpus, learner.windows
    splits = [split for split in (corpus.validation, corpus.test) if split]
    to_score = sum(split.counts.tokens for split in splits)
    begin = time.perf_counter()
    scored = _validate(learner)
    validation_time = time.perf_counter() - begin
    scoring = validation_time * to_score / max(scored, 1)
    interruption = validation_time + _sampling_time(learner) + _checkpoint_size(learner) / _BYTES_PER_SECOND
    steps = total_steps(learner)
    if steps:
        seconds = steps * step_time + min(_VALIDATIONS, steps) * interruption + scoring
    else:
        budget = config.training.time_budget
        # The training loop reserves no time where every validation scores the whole text anyway.
        reserved = scoring if scored < to_score else 0.0
        steps, seconds = fill_budget(budget, step_time, interruption, reserved)
        seconds += scoring - reserved
    characters = corpus.train.counts.characters / corpus.train.counts.tokens
    flat = config.flat()
    return Estimate(
        parameters=learner.network.parameter_count(),
        resolved={name: flat[name] for name in _RESOLVED},
        seconds=seconds,
        steps=steps,
        epochs=steps / windows.steps_per_epoch if windows.steps_per_epoch else None,
        steps_per_second=1 / step_time,
        characters_per_second=windows.tokens_per_step * characters / step_time,
        memory=_memory(learner),
        disk=4 * learner.network.parameter_count() + _checkpoint_size(learner),
        device=learner.device.type,
    )


def fill_budget(budget: float, step_time: float, interruption: float, scoring: float) -> tuple[int, float]:
    """The number of steps that fit into a time budget, and the seconds until the run is over.

    As in the training loop, each tenth of the budget ends with an interruption (validation, sample and
    checkpoint), and time for the final evaluation, which takes `scoring` seconds if it covers the whole
    text, is reserved. All arguments are in seconds.
    """
    reserved = scoring_time(budget, scoring)
    budget -= reserved
    steps, clock = 0, 0.0
    while clock < budget:
        tenth = budget / _VALIDATIONS * (int(_VALIDATIONS * clock / budget) + 1)
        taken = max(1, math.ceil((tenth - clock) / step_time))
        steps, clock = steps + taken, clock + taken * step_time + interruption
    return steps, clock + reserved


def _validate(learner: Learner) -> int:
    """Validate as between two steps. Returns the number of tokens scored."""
    split, eos = learner.corpus.validation, learner.corpus.tokenizer.eos
    limit, precision = learner.config.training.eval_tokens, learner.precision
    return validate(learner.network, split.tokens, split.counts, eos, limit=limit, precision=precision).tokens


def _sampling_time(learner: Learner) -> float:
    """Seconds that generating a sample takes."""
    model, begin = LanguageModel(learner.network, learner.corpus.tokenizer, {}), time.perf_counter()
    model.generate("", max_new_tokens=_SAMPLE_TOKENS, seed=1)
    return time.perf_counter() - begin


def _memory(learner: Learner) -> int:
    """Bytes that training needs at most: what this process used and the copy that a rollback restores. On
    Windows, an estimate."""
    checkpoint = _checkpoint_size(learner)
    if learner.device.type == "cuda":
        return torch.cuda.max_memory_reserved() + checkpoint
    if sys.platform == "win32":
        return memory_needed(learner.config, learner.corpus.tokenizer.vocab_size)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) + checkpoint


def _checkpoint_size(learner: Learner) -> int:
    """Bytes of the weights, the optimizer's moments and the recurrent state."""
    tensors = [*learner.network.parameters(), *learner.state]
    for moments in learner.optimizer.state.values():
        tensors += [value for value in moments.values() if hasattr(value, "nbytes")]
    return sum(tensor.nbytes for tensor in tensors)


def memory_needed(config: RunConfig, vocab_size: int) -> int:
    """About how many bytes training takes on a CPU: the process itself, the network and what
    backpropagation stores. On seven shapes, 2026-11-24, it was 0.8 to 1.4 times what the process used."""
    return _PROCESS + sum(training_memory(config, vocab_size))


def _untried(config: RunConfig, corpus: Corpus, memory: int) -> Estimate:
    """The estimate for a network that does not fit into the free memory."""
    vocab_size, flat = corpus.tokenizer.vocab_size, config.flat()
    weights = parameter_count(smallest(config.model, vocab_size), vocab_size)
    return Estimate(
        parameters=weights,
        resolved={name: flat[name] for name in _RESOLVED},
        seconds=config.training.max_time,
        steps=config.training.steps,
        epochs=config.training.epochs,
        steps_per_second=None,
        characters_per_second=None,
        memory=memory,
        disk=16 * weights,
    )


if __name__ == "__main__":
    sys.exit(main())
