"""The guard rail: a training step that ruins the network is undone.

Whenever the loss has been looked at and is well, all of the training is copied in memory. Where the
loss is no longer a number, or has risen far above what it was of late, the training goes back to that
copy with a lower learning rate. The clock runs on.

A risen loss is no proof: the text itself may have changed, from English to Chinese say, and then
going back would only meet the same text again. So the network of now and that of the copy read the
next windows side by side, and only if the older one predicts them better by much was it the training
that did the harm. That takes a moment, so it is done on suspicion alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lm.errors import UserError
from lm.model.device import autocast
from lm.training.checkpoint import capture, restore

if TYPE_CHECKING:
    from lm.training.loop import Trainer

_MOST_UNDONE = 3
_REMEMBERED = 20  # losses, by which to tell what is usual
_TOO_MUCH = 0.2  # above what is usual, as a share of it,
_AT_LEAST = 0.4  # nats, and at least this
_COMPARED = 2048  # tokens, about, that both networks read
_MOST_WINDOWS = 25


def went_back(trainer: Trainer, loss: float, complete: bool) -> bool:
    """Judge the mean training loss (nats per token) since the last line of metrics, and go back to
    the last good state if something has ruined the network.

    An incomplete one is of too few steps to be judged by its height. Raises UserError where going
    back did not help.
    """
    progress = trainer.progress
    if not math.isfinite(loss):
        _go_back(trainer, "is no longer a number")
        return True
    if not complete:
        return False
    usual = _usual(progress.losses or [math.log(trainer.network.vocab_size)])
    margin = _margin(usual)
    if loss > usual + margin:
        if _was_harmed(trainer, margin / 2):
            _go_back(trainer, f"rose from {usual:.2f} to {loss:.2f}")
            return True
        progress.losses.clear()  # another text: what was usual before is no measure for it
    progress.losses = [*progress.losses, loss][-_REMEMBERED:]
    return False


def remember(trainer: Trainer) -> None:
    """Copy the training, if it goes well. That takes no longer than the optimiser takes for a step,
    and is done only where the loss is looked at."""
    good = trainer.good
    if not good or _goes_well(trainer.progress.losses):
        trainer.good = capture(trainer).kept(good.tensors if good else None)


def _goes_well(losses: list[float]) -> bool:
    """Whether the last loss is about as low as usual: where it has begun to rise, a copy would
    preserve the beginning of the harm."""
    usual = _usual(losses)
    return losses[-1] <= usual + _margin(usual) / 4


def _usual(losses: list[float]) -> float:
    """The lower quartile: a loss that falls, as at the beginning, was higher most of the time."""
    return sorted(losses)[len(losses) // 4]


def _margin(usual: float) -> float:
    return max(_TOO_MUCH * usual, _AT_LEAST)


def _go_back(trainer: Trainer, why: str) -> None:
    """Go on from the last good state, each time more carefully."""
    then, training = trainer.progress, trainer.config.training
    if then.undone >= _MOST_UNDONE:
        kept = f" {trainer.run.folder} keeps the best weights so far." if then.best_step else ""
        raise UserError(
            f"the training loss {why} by step {then.step:,}, although the learning rate was lowered"
            f" {then.undone} times: lower --lr (now {training.lr:g}) or --clip.{kept}"
        )
    restore(trainer, trainer.good)
    now = trainer.progress
    if trainer.ranks.first:
        trainer.run.cut(now.lengths)
    trainer.tracker.back_to(now.step)
    # What these tell does not depend on where the training stands: the best weights are saved.
    now.best_loss, now.best_step, now.reserve = then.best_loss, then.best_step, then.reserve
    now.undone = then.undone + 1
    # A half, then a quarter, then an eighth of what it was: a rate that is too high by far is found,
    # and one that is nearly right is kept nearly.
    now.rate = then.rate * 0.5**now.undone
    trainer.display.say(
        f"The training loss {why} by step {then.step:,}: back to step {now.step:,}, with"
        f" {now.rate:.3g} times the learning rate ({now.undone} of at most {_MOST_UNDONE} times)."
    )


def _was_harmed(trainer: Trainer, margin: float) -> bool:
    """Whether the network predicts the next windows worse by `margin` than the good one did."""
    windows, step = trainer.windows, trainer.progress.step
    count = min(math.ceil(_COMPARED / windows.tokens_per_step), _MOST_WINDOWS)
    place, tensors = windows.position()
    ahead = [windows.window(step + number) for number in range(count)]
    windows.restore(place, tensors)
    weights = list(trainer.network.named_parameters())
    now = [weight.detach().clone() for _, weight in weights]
    losses = []
    for values in ([trainer.good.tensors[f"network.{name}"] for name, _ in weights], now):
        with torch.no_grad():
            for (_, weight), value in zip(weights, values, strict=True):
                weight.copy_(value)
        losses.append(_loss(trainer, ahead))
    return not losses[1] < losses[0] + margin


@torch.no_grad()
def _loss(trainer: Trainer, windows: list[tuple[Tensor, Tensor]]) -> float:
    """Nats per token over windows that follow each other, from an empty state, on all ranks."""
    network, state, total = trainer.network.eval(), None, 0.0
    for inputs, targets in windows:
        with autocast(trainer.device, trainer.precision):
            loss, _, state = network.loss(inputs, targets, state)
        total += loss.item()
    network.train()
    total *= len(windows[0][0]) / trainer.windows.batch_size  # this rank's share of the streams
    return trainer.ranks.sum(torch.tensor(total, dtype=torch.float64)).item() / len(windows)
