"""`--find-lr`: the learning-rate range test (Smith 2015, arXiv:1506.01186).

One short training in which the rate grows exponentially from far too low to far too high. Too low a
rate does not move the loss, a good one makes it fall, and from some rate on it explodes: the picture
shows where.
"""

from __future__ import annotations

import math
from pathlib import Path

from lm.config.schema import RunConfig
from lm.data.corpus import Corpus
from lm.files import write_text
from lm.training.finetune import start_from
from lm.training.loop import build, step
from lm.training.out_of_memory import telling_what_to_lower
from lm.training.plot import Points, rate_curve
from lm.training.progress import Display

PICTURE = Path("find-lr.svg")
_LOWEST, _HIGHEST = 1e-6, 10.0
_STEPS = 200
_SMOOTHING = 0.9  # of the loss, which is that of one window
_EXPLODED = 1.1  # times the loss at the start


def find_rate(config: RunConfig, corpus: Corpus, display: Display) -> float:
    """Draw the loss over the learning rate into find-lr.svg in the current folder, print the
    suggested rate and give it back. Nothing else is written."""
    with telling_what_to_lower(config, corpus.tokenizer.vocab_size):
        losses = _walk(config, corpus, display)
    rate = suggestion(losses)
    write_text(PICTURE, rate_curve(losses, rate, f"{corpus.name}, {config.model.cell.upper()}"))
    display.say(f"Try --lr {rate:.2g}. The loss over the learning rate is drawn in {PICTURE}.")
    return rate


def suggestion(losses: Points) -> float:
    """A tenth of the rate at which the loss was lowest: there it still falls steeply, and with room
    before it explodes."""
    return min(losses, key=lambda point: point[1])[0] / 10


def _walk(config: RunConfig, corpus: Corpus, display: Display) -> Points:
    """The smoothed training loss (nats per token) at each rate, until it explodes."""
    trainer = build(config, corpus, display)
    if config.training.init_from:
        start_from(config.training.init_from, trainer.network, corpus.tokenizer)
    trainer.network.train()
    losses: Points = []
    mean = weight = 0.0
    try:
        with display.progress() as progress:
            for number in range(_STEPS + 1):
                rate = _LOWEST * (_HIGHEST / _LOWEST) ** (number / _STEPS)
                for group in trainer.optimizer.param_groups:
                    group["lr"] = rate
                loss = step(trainer).item()
                trainer.progress.step += 1
                mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
                weight = _SMOOTHING * weight + (1 - _SMOOTHING)
                if not math.isfinite(loss) or (losses and mean / weight > _EXPLODED * losses[0][1]):
                    break
                losses.append((rate, mean / weight))
                progress("Trying learning rates", number / _STEPS)
    finally:
        trainer.windows.close()
    return losses
