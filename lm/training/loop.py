"""The training loop, from top to bottom: windows of text in, weight updates out.

lm/training/setup.py builds the trainer, and lm/training/step.py is what happens in a step.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing

from lm.console.invocation import resume_command
from lm.console.streams import outlive_output
from lm.console.wording import plural
from lm.training import record, rollback
from lm.training.display import StepMetrics
from lm.training.optimizer import learning_rate
from lm.training.signals import BROKEN_PIPE, Interrupted, interruptible, listening
from lm.training.state import Trainer
from lm.training.step import Step

# Steps from one line of metrics to the next. A GPU is idle while a line is written: as long as a step or two.
_LOG_EVERY, _LOG_EVERY_ON_GPU = 25, 100
_SAVE_EVERY = 30.0  # seconds


def train(trainer: Trainer) -> int:
    """Train until the budget is spent, a callback stops the training, a signal arrives or the reader of the
    output closes it. Returns the number of the signal, BROKEN_PIPE for a closed output, else 0.

    Raises UserError if a rank is lost, if the loss keeps exploding, or if nothing could be saved.
    """
    outlive_output()
    with (
        listening(trainer.ranks) as signals,
        record.explaining_lost_ranks(trainer),
        closing(trainer.tracker),
        trainer.clock.running(),
    ):
        try:
            trainer.display.start()
            interrupted = fit(trainer, signals)
        finally:
            trainer.display.stop()
            trainer.learner.windows.close()
        if interrupted:
            record.keep_folder(trainer)
            record.save(trainer)
        elif not (interrupted := _score(trainer, signals)):
            return 0
        if not trainer.disk.ever_saved:
            raise record.nothing_saved(trainer)
        saved = "saved" if trainer.disk.has_checkpoint else "not saved, but the last checkpoint is intact"
        stopped = f"Stopped and {saved}. Resume with: {resume_command(trainer.run.folder)}"
        if trainer.display.closed:
            print(stopped, file=sys.stderr)
        else:
            trainer.display.say(f"\n{stopped}")
        return interrupted


def _score(trainer: Trainer, signals: list[int]) -> int:
    """Score the best weights. Returns the number of a signal that has interrupted it, else 0. The last step
    is saved already, so a resumed run has only this left to do."""
    try:
        with interruptible(signals, trainer.ranks):
            record.finish(trainer)
    except Interrupted as signal:
        return signal.number
    return 0


def fit(trainer: Trainer, signals: list[int]) -> int:
    """Step until the budget is spent, a callback stops it or a signal arrives. Returns the signal's number,
    else 0."""
    training, ranks, callbacks = trainer.learner.config.training, trainer.ranks, trainer.callbacks
    step = Step(trainer.learner, trainer.display.warn)
    trainer.agreed_seconds, interrupted = ranks.start_agreement(trainer.seconds, signals)()
    trainer.last_save_time, since = trainer.now, trainer.seconds
    if trainer.validation and not trainer.progress.step:
        record.begin_fine_tuning(trainer, trainer.validation)
    if not trainer.good.tensors:  # otherwise it came with the checkpoint
        rollback.remember(trainer)
    trainer.learner.network.train()
    spent = trainer.fraction_done >= 1 or _out_of_patience(trainer)
    stopped = False  # by a callback
    steps_since = 0
    while not spent and not interrupted:
        if trainer.display.closed and BROKEN_PIPE not in signals:
            signals.append(BROKEN_PIPE)
        agreement = ranks.start_agreement(trainer.seconds, signals)
        rate = trainer.progress.rate * learning_rate(trainer.fraction_done, training)
        loss = step(trainer.progress.step, rate)
        trainer.loss_sum += loss
        trainer.agreed_seconds, interrupted = agreement()
        progress = trainer.progress
        progress.step += 1
        progress.loss_count += 1
        steps_since += 1
        if callbacks.on_step:  # only then: this waits for the device
            stopped = callbacks.asks_to_stop(callbacks.on_step, record.metrics(trainer, loss.item()))

        # Decided once per step: a validation refines the estimate of how long the final scoring takes,
        # after which a time budget that was spent may not be spent any more.
        spent = stopped or trainer.fraction_done >= 1
        validation_due = spent or _validation_due(trainer)
        sample_due = _sample_due(trainer, validation_due)
        save_due = validation_due or _save_due(trainer)
        log_due = validation_due or _log_due(trainer)
        if not (log_due or sample_due or save_due):
            continue  # without waiting for the device

        if save_due or ranks.is_single_process:  # several would wait for each other
            record.keep_folder(trainer)
        now = _step_metrics(trainer, steps_since, trainer.seconds - since)
        ruined = rollback.roll_back_if_diverged(trainer, now.train_loss, complete=log_due)
        if validation_due and not ruined:
            result = record.validate(trainer)
            if not (ruined := rollback.roll_back_if_validation_diverged(trainer, result)):
                now = dataclasses.replace(now, validation=result)
        if ruined:
            spent, since, steps_since = stopped, trainer.seconds, 0
            continue
        if validation_due:
            trainer.display.milestone(now)
        if log_due:
            row = record.log(trainer, now, validation_due)
            trainer.loss_sum.zero_()
            progress.loss_count = 0
        if sample_due:
            record.sample(trainer)
        if validation_due:  # saved right before the checkpoint, so that a kill seldom comes between the two
            record.keep_if_best(trainer, result)
            if not spent and (spent := _out_of_patience(trainer)):
                trainer.display.say(
                    f"Stopping early: {plural(progress.worse, 'validation')} in a row did not improve on"
                    f" {progress.best_loss:.4f} at step {progress.best_step:,}."
                )
        if log_due:
            rollback.remember(trainer)
        if save_due:
            record.save(trainer)
        # Last, because it may raise.
        callback = callbacks.on_validation if validation_due else None
        if callback and callbacks.asks_to_stop(callback, row):
            spent = stopped = True
        trainer.display.update(dataclasses.replace(now, done=trainer.fraction_done, seconds=trainer.seconds))
        since, steps_since = trainer.seconds, 0
    if stopped:
        trainer.display.say(f"Stopped by a callback at step {trainer.progress.step:,}.")
    return ranks.start_agreement(trainer.seconds, signals)()[1]


def _validation_due(trainer: Trainer) -> bool:
    progress, every = trainer.progress, trainer.learner.config.training.eval_every
    tenth, progress.tenth = progress.tenth, int(trainer.fraction_done * 10)
    return progress.step % every == 0 if every else progress.tenth > tenth


def _out_of_patience(trainer: Trainer) -> bool:
    patience = trainer.learner.config.training.patience
    return patience is not None and trainer.progress.worse >= patience


def _sample_due(trainer: Trainer, validation_due: bool) -> bool:
    every = trainer.learner.config.training.sample_every
    if every is None:  # the first one shows what training starts from
        return validation_due or trainer.progress.step == 1
    return every > 0 and trainer.progress.step % every == 0


def _log_due(trainer: Trainer) -> bool:
    every = _LOG_EVERY_ON_GPU if trainer.learner.device.type == "cuda" else _LOG_EVERY
    return trainer.progress.step % every == 0


def _save_due(trainer: Trainer) -> bool:
    every = trainer.learner.config.training.save_every
    if every:
        return trainer.progress.step % every == 0
    # Best right after the rollback's copy: a copy of another step would have to be saved as well.
    patience = _SAVE_EVERY if _log_due(trainer) else 2 * _SAVE_EVERY
    return trainer.now - trainer.last_save_time > patience


def _step_metrics(trainer: Trainer, steps: int, seconds: float) -> StepMetrics:
    progress = trainer.progress
    loss = trainer.loss_sum.item() / progress.loss_count
    rate = steps * trainer.learner.windows.tokens_per_step / max(seconds, 1e-9)
    return StepMetrics(trainer.fraction_done, progress.step, trainer.seconds, loss, rate, trainer.validation)
