"""Rolls back a training run whose loss has diverged.

Whenever the loss is logged and looks healthy, the whole training state is copied in memory. If the loss
becomes NaN or rises far above its recent level, the training returns to that copy with a lower learning
rate. The clock keeps running.

A higher loss alone proves nothing: the text itself may have changed, from English to Chinese for example,
and going back would only meet the same text again. So the current network and the copy are compared on the
next windows. Only if the older network predicts them much better did the training do the damage. The
comparison takes a moment, so it runs only on suspicion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lm.config.schema import TrainingConfig
from lm.errors import UserError
from lm.evaluation.validation import Validation
from lm.model.device import autocast
from lm.training.checkpoint import restore, take_snapshot
from lm.training.state import Learner, Trainer

_MAX_ROLLBACKS = 3
_RECENT = 20  # losses that define the usual level
_MAX_RISE = 0.2  # above the usual level, as a share of it,
_MIN_MARGIN = 0.4  # nats, but at least this much
_COMPARED = 2048  # tokens, about, that both networks read
_MAX_WINDOWS = 25


def roll_back_if_diverged(trainer: Trainer, loss: float, complete: bool) -> bool:
    """Judge the mean training loss (nats per token) since the last line of metrics, and return to the
    last good state if a step has ruined the network. Returns whether that happened.

    A mean that is not `complete` covers too few steps to be judged by its level: only NaN counts. Raises
    UserError after too many rollbacks.
    """
    if not complete and math.isfinite(loss):
        return False
    progress = trainer.progress
    usual = _usual(progress.losses or [_untrained(trainer)])
    if _roll_back_if_ruined(trainer, loss, usual):
        return True
    if loss > usual + _margin(usual):
        progress.losses.clear()  # the text has changed: earlier losses are no measure for it
    progress.losses = [*progress.losses, loss][-_RECENT:]
    return False


def roll_back_if_validation_diverged(trainer: Trainer, validation: Validation) -> bool:
    """As `roll_back_if_diverged`, but judged by the validation loss. It includes the last update; the
    training loss of a step is computed before its update."""
    # The validation text may be harder than what was read last, but not than for an untrained network.
    usual = max(_untrained(trainer), *trainer.progress.losses[-1:])
    return _roll_back_if_ruined(trainer, validation.loss, usual)


def _roll_back_if_ruined(trainer: Trainer, loss: float, usual: float) -> bool:
    """Roll back if the loss is not finite, or if it is far above `usual` and the network is to blame."""
    margin = _margin(usual)
    if not math.isfinite(loss):
        _roll_back(trainer, "became NaN")
        return True
    if loss > usual + margin and _damaged(trainer, margin / 2):
        _roll_back(trainer, f"rose from {usual:.2f} to {loss:.4g}")
        return True
    return False


def _untrained(trainer: Trainer) -> float:
    """The loss of a network that has learned nothing."""
    return math.log(trainer.learner.network.vocab_size)


def remember(trainer: Trainer) -> None:
    """Copy the training state if it is healthy. Costs no more than the optimizer's share of a step."""
    if not trainer.good.tensors or _healthy(trainer.progress.losses):
        trainer.good = take_snapshot(trainer).copy(trainer.good.tensors)


def _healthy(losses: list[float]) -> bool:
    """Whether the last loss is about as low as usual. A copy made after the loss has started to rise could
    already be damaged."""
    usual = _usual(losses)
    return losses[-1] <= usual + _margin(usual) / 4


def _usual(losses: list[float]) -> float:
    """The lower quartile: while the loss falls, as at the beginning, most earlier values are higher."""
    return sorted(losses)[len(losses) // 4]


def _margin(usual: float) -> float:
    return max(_MAX_RISE * usual, _MIN_MARGIN)


def _roll_back(trainer: Trainer, reason: str) -> None:
    """Continue from the last good state, more carefully each time."""
    then, training = trainer.progress, trainer.learner.config.training
    if then.undone >= _MAX_ROLLBACKS:
        settings = f"--lr (now {training.lr:g}) or --clip"
        if training.weight_decay > TrainingConfig().weight_decay:
            settings = f"--lr (now {training.lr:g}), --clip or --weight-decay (now {training.weight_decay:g})"
        kept = f" {trainer.run.folder} has the best weights so far." if then.has_best else ""
        raise UserError(
            f"the loss {reason} by step {then.step:,}, although the learning rate was lowered"
            f" {then.undone} times: lower {settings}.{kept}"
        )
    restore(trainer, trainer.good)
    now = trainer.progress
    if trainer.ranks.is_main_process:
        trainer.run.cut(now.lengths)
    trainer.tracker.back_to(now.step)
    # These do not depend on the position in the training: the best weights are saved.
    now.best_loss, now.best_step, now.reserve = then.best_loss, then.best_step, then.reserve
    now.undone = then.undone + 1
    # Factors of 1/2, 1/4, 1/8, together 1/2, 1/8, 1/64: a rate that is far too high is soon low enough, and
    # one that is almost right changes little.
    now.rate = then.rate * 0.5**now.undone
    trainer.display.say(
        f"The loss {reason} by step {then.step:,}: back to step {now.step:,}, with"
        f" {now.rate:.3g} times the learning rate ({now.undone} of at most {_MAX_ROLLBACKS} times)."
    )


def _damaged(trainer: Trainer, margin: float) -> bool:
    """Whether the network predicts the next windows worse by `margin` (nats) than the good copy does."""
    learner = trainer.learner
    windows, step = learner.windows, trainer.progress.step
    count = min(math.ceil(_COMPARED / windows.tokens_per_step), _MAX_WINDOWS)
    position, tensors = windows.position()
    ahead = [windows.window(step + number) for number in range(count)]
    windows.restore(position, tensors)
    weights = list(learner.network.named_parameters())
    current = [weight.detach().clone() for _, weight in weights]
    good = [trainer.good.tensors[f"network.{name}"] for name, _ in weights]
    losses = []
    for values in (good, current):
        with torch.no_grad():
            for (_, weight), value in zip(weights, values, strict=True):
                weight.copy_(value)
        losses.append(_loss(learner, ahead))
    return not losses[1] < losses[0] + margin


@torch.no_grad()
def _loss(learner: Learner, windows: list[tuple[Tensor, Tensor]]) -> float:
    """Nats per token over consecutive windows, from the zero state, on all ranks."""
    network, state, total = learner.network.eval(), None, 0.0
    for inputs, targets in windows:
        with autocast(learner.device, learner.precision):
            loss, _, state = network.loss(inputs, targets, state)
        total += loss.item()
    network.train()
    total *= len(windows[0][0]) / learner.windows.batch_size  # this rank's share of the streams
    return learner.ranks.all_reduce(torch.tensor(total, dtype=torch.float64)).item() / len(windows)
