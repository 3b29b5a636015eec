"""From settings and text to a trainer, for a new run or one that resumes."""

from __future__ import annotations

import dataclasses
import math
from contextlib import ExitStack
from pathlib import Path

import torch

from lm.config.resolved import ResolvedConfig
from lm.config.schema import RunConfig
from lm.console.terminal import Terminal, duration
from lm.console.wording import plural
from lm.data import report
from lm.data.batches import Windows
from lm.data.corpus import Corpus
from lm.data.streaming import DocumentStream, StreamedWindows
from lm.distributed import ALONE, Ranks
from lm.errors import ModelError, UserError
from lm.evaluation.validation import Validation
from lm.files.atomic import writing
from lm.model.device import choose_device, choose_precision, precision_facts, widest_float
from lm.model.direction import Direction
from lm.model.size import recurrent_weights
from lm.storage.loading import check_weights
from lm.storage.run_folder import Run, checkpoint_of, create_run
from lm.training.auto import (
    fine_tuning_rate,
    resolve,
    shortest_stream,
    training_precision,
    usual_shape,
    window_shape,
)
from lm.training.checkpoint import load_checkpoint, seed_of
from lm.training.clock import Clock
from lm.training.disk import Disk
from lm.training.display import Display
from lm.training.facts import Facts
from lm.training.finetune import start_from
from lm.training.optimizer import learning_rate
from lm.training.record import newer_model, score
from lm.training.state import (
    Learner,
    Progress,
    Snapshot,
    Trainer,
    budget_of,
    share_spent,
    total_steps,
)
from lm.training.tracking import Tracker


def new_trainer(
    config: RunConfig, corpus: Corpus, terminal: Terminal, ranks: Ranks, overwrite: bool, claims: ExitStack
) -> Trainer:
    """The trainer of a new run, whose folder it creates, and owns until `claims` ends. Raises UserError."""
    learner = build_learner(config, corpus, ranks)
    init_from, network = learner.config.training.init_from, learner.network
    kept, own_loss = start_from(init_from, network, corpus.tokenizer) if init_from else ("", None)
    ranks.broadcast(network.parameters())
    start = None
    if init_from:
        start = score(learner, network, corpus.validation, config.training.eval_tokens)
        if config.training.lr == "auto":
            _lower_rate(learner, start, own_loss)

    def make_folder() -> tuple[str, str]:
        run, note = create_run(learner.config, corpus.name, corpus.tokenizer, overwrite, claims)
        return str(run.folder), note

    folder, note = ranks.broadcast_object(make_folder)
    run = Run(Path(folder))
    if not ranks.is_main_process:
        torch.manual_seed(seed_of(learner, 0))
    trainer = _trainer(learner, run, terminal)
    trainer.validation = start
    _report(trainer, kept)
    if note:
        trainer.display.warn(note)
    return trainer


def _lower_rate(learner: Learner, start: Validation, own_loss: float | None) -> None:
    """Choose the learning rate of a network that is already trained, which has the loss `start` here and had
    `own_loss` (nats per character) on its own text, if that is known."""
    loss, training = start.bits_per_character * math.log(2), learner.config.training
    rate = fine_tuning_rate(training.lr, loss - own_loss if own_loss else 0.0)
    rate = learner.ranks.broadcast_object(lambda: rate)
    learner.config = dataclasses.replace(learner.config, training=dataclasses.replace(training, lr=rate))


def resumed_trainer(
    run: Run,
    config: RunConfig,
    corpus: Corpus,
    terminal: Terminal,
    ranks: Ranks,
    saved: RunConfig,
    update: RunConfig | None = None,
) -> Trainer:
    """The trainer of a stopped run, as its last checkpoint left it, with the budget in `config`.

    `corpus` is the text of the run, and `saved` what its config.yaml says. Writes `update`, the settings with
    a new budget or place of the text, to config.yaml. Raises UserError if the budget is spent, ModelError if
    a file of the run is missing or damaged.
    """
    learner = build_learner(config, corpus, ranks)
    trainer = _trainer(learner, run, terminal)
    trainer.disk.ever_saved = True
    load_checkpoint(Path(ranks.broadcast_object(lambda: str(checkpoint_of(run)))), trainer)
    trainer.progress.corpus = corpus.key  # its name may be new
    for progress in (trainer.progress, trainer.good.progress):
        progress.settings = (update or saved).flat()
    _check_best(trainer)
    trainer.newer = newer_model(trainer)
    new_budget = _adopt_budget(trainer, bool(update))
    trainer.clock = Clock(trainer.progress.seconds)
    if ranks.is_main_process:
        if update:
            with writing(run.config):
                run.write_config(update)
        run.remove_partial()
        run.cut(trainer.progress.lengths)
    _report(trainer, f"Resuming from step {trainer.progress.step:,}.\n{new_budget}")
    return trainer


def _check_best(trainer: Trainer) -> None:
    """Raise ModelError if the best weights so far are damaged. If they have been deleted, choose them from
    the rest of the training."""
    weights = trainer.run.folder / "model.safetensors"

    def exist() -> bool:
        if weights.exists():
            try:
                check_weights(trainer.run.folder)
            except ModelError as error:
                raise ModelError(
                    f"{str(error).rstrip('.')}. Restore it from a copy, or delete {weights} to choose the"
                    " best weights from the rest of the training."
                ) from error
        return weights.exists()

    if trainer.progress.has_best and not trainer.ranks.broadcast_object(exist):
        trainer.display.warn(
            f"{weights} is missing: the best weights will be chosen from the rest of the training."
        )
        for progress in (trainer.progress, trainer.good.progress):
            progress.forget_best()


def _adopt_budget(trainer: Trainer, updated: bool) -> str:
    """Continue with the budget in the settings, from the position in it. Returns a line about it if it is
    new. Raises UserError if it is spent.

    The new budget is stored with the next checkpoint. A run killed before that adopts it again when it
    resumes. `updated`: the budget or the path of the text was changed by this command.
    """
    learner, now = trainer.learner, trainer.progress
    budget = budget_of(learner.config)
    if now.budget == budget or (now.budget is None and not updated):
        now.budget = budget
        return ""
    if (share := share_spent(learner, now, now.seconds)) >= 1:
        raise UserError(
            f"{trainer.run.folder} has already spent that budget: it has taken"
            f" {_spent(learner, now)}. Name a larger one."
        )
    for progress in (now, trainer.good.progress):
        progress.tenth = int(share_spent(learner, progress, progress.seconds) * 10)
        progress.budget, progress.finished, progress.worse = budget, False, 0  # patience starts over
        if now.step:
            progress.extended = [*progress.extended, now.step]
    rate = now.rate * learning_rate(share, learner.config.training)
    return f"{share:.0%} of the new budget is spent: the learning rate continues at {rate:.2g}.\n"


def _spent(learner: Learner, progress: Progress) -> str:
    """'300 steps' or '2:05'."""
    if not total_steps(learner):
        return duration(progress.seconds)
    epochs = progress.step / (learner.windows.steps_per_epoch or math.inf)
    return plural(progress.step, "step") + (f" ({epochs:.3g} epochs)" if epochs else "")


def build_learner(config: RunConfig, corpus: Corpus, ranks: Ranks = ALONE) -> Learner:
    """What a training step needs: network, optimizer and windows of text, on the device.

    Raises UserError for settings that do not fit the text or the machine.
    """
    device = choose_device(config.training.device)
    ranks.take_device(device)
    precision = choose_precision(config.training.precision, device)
    ranks.check_same(
        {"--device": device.type, "--precision": precision.value}, "name both, so that all ranks agree."
    )
    windows = _windows(config, corpus, device, ranks)
    settings = ranks.broadcast_object(lambda: resolve(config, corpus, windows, device, precision).flat())
    resolved = ResolvedConfig.of(RunConfig.from_flat(settings))
    torch.manual_seed(resolved.training.seed)
    precision = training_precision(config.training.precision, precision, resolved.model, device)
    return Learner.create(resolved, corpus, windows, device, precision, ranks)


def _trainer(learner: Learner, run: Run, terminal: Terminal) -> Trainer:
    corpus, device, display = learner.corpus, learner.device, Display(terminal)
    budget = budget_of(learner.config)
    settings = learner.config.flat()
    progress = Progress(corpus=corpus.key, budget=budget, tokenizer=corpus.tokenizer_id, settings=settings)
    return Trainer(
        learner=learner,
        run=run,
        tracker=Tracker(),
        display=display,
        disk=Disk(display.say, display.warn_even_if_quiet),
        progress=progress,
        loss_sum=torch.zeros((), dtype=widest_float(device), device=device),
        good=Snapshot(progress, {}),
    )


def _windows(
    config: RunConfig, corpus: Corpus, device: torch.device, ranks: Ranks
) -> Windows | StreamedWindows:
    parts, direction = config.training.accumulate, Direction(config.model.direction)
    size, bptt = window_shape(config, corpus, device, min_streams=ranks.world_size * parts)
    if size < ranks.world_size * parts:
        raise UserError(
            f"--batch-size {size} is too small for {plural(ranks.world_size, 'rank')} with"
            f" --accumulate {parts}: it must be at least {ranks.world_size * parts}."
        )
    rows = ranks.share(size)
    if config.data.streaming:
        documents = DocumentStream(config.data, corpus.held_out, config.training.seed)
        return StreamedWindows(documents, corpus.tokenizer, size, bptt, device, direction, rows)
    tokens, eos = corpus.train.tokens, corpus.tokenizer.eos
    shortest = shortest_stream(config, corpus, size)
    if 0 < shortest < bptt:
        raise UserError(
            f"--bptt {bptt} is longer than a stream: {plural(len(tokens), 'token')} in"
            f" {plural(size, 'stream')} leave the shortest with {shortest}. Lower --bptt to"
            " that, or use fewer streams (--batch-size)."
        )
    windows = Windows(tokens, size, bptt, eos, device, corpus.parts, config.data.mix, direction, rows)
    windows.shrunk = (size, bptt) != usual_shape(config, corpus, device)
    return windows


def _report(trainer: Trainer, beginning: str) -> None:
    """Write facts.json, print the same facts, and start the tracker."""
    learner, run, disk, display = trainer.learner, trainer.run, trainer.disk, trainer.display
    facts = _facts(learner)

    def add(warning: str) -> None:
        if warning not in facts.warnings:
            facts.warnings.append(warning)
            disk.attempt("facts.json", lambda: facts.save(run))

    if trainer.ranks.is_main_process:
        display.on_warning = add
        disk.attempt("facts.json", lambda: facts.save(run))
    display.facts(facts, run.folder)
    if beginning:
        display.say(beginning)
    config = learner.config
    if not trainer.ranks.is_main_process:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, track="none"))
    trainer.tracker.open(run, config, trainer.progress.step, display.warn_even_if_quiet)


def _facts(learner: Learner) -> Facts:
    config, corpus = learner.config, learner.corpus
    model, counts = config.model, corpus.train.counts
    notes = " (readable cells)" if model.cell_implementation == "reference" else ""
    notes += ", right to left" if model.backward else ""
    return Facts(
        text=report.rows(corpus, config.data.data_report),
        model=f"{model.cell.upper()}, {plural(model.layers, 'layer')} of {model.hidden_size} units,"
        f" embeddings of {model.embedding_size}, {learner.network.parameter_count():,} parameters{notes}",
        compute=_compute(learner),
        budget=_budget(learner),
        total_steps=total_steps(learner),
        characters_per_token=counts.characters / max(counts.tokens, 1),
        settings=config.flat(),
        warnings=report.warnings(corpus, recurrent_weights(model), model),
    )


def _compute(learner: Learner) -> str:
    """'cpu (2 threads), bf16'."""
    text, ranks = learner.device.type, learner.ranks
    if learner.device.type == "cpu":
        threads = plural(torch.get_num_threads(), "thread")
        text += f" ({threads})" if ranks.is_single_process else f" ({threads} per rank)"
    if not ranks.is_single_process:
        text += f", {ranks.world_size} ranks"
    name = learner.config.training.precision
    return f"{text}, {precision_facts(name, learner.precision, learner.device)}"


def _budget(learner: Learner) -> str:
    """'2:00, 32 streams × 64 tokens per step, 5,000 steps per epoch'."""
    training, windows = learner.config.training, learner.windows
    steps = total_steps(learner)
    text = plural(steps, "step") if steps else duration(training.time_budget)
    text += f", {plural(training.batch_size, 'stream')} × {plural(training.bptt, 'token')} per step"
    if learner.config.data.mix and isinstance(windows, Windows):
        text += f" ({', '.join(map(str, windows.streams))} of them in each text)"
    if isinstance(windows, Windows) and windows.shrunk:
        text += " (the text is short)"
    per_epoch = windows.steps_per_epoch
    return f"{text}, {plural(round(per_epoch), 'step')} per epoch" if per_epoch else text
