"""`--find-lr`: the learning-rate range test (Smith 2015, arXiv:1506.01186).

A short training in which the rate grows exponentially from far too low to far too high. A rate that is too
low does not move the loss, a good one makes it fall, and above some rate it explodes.
"""

from __future__ import annotations

import math
from pathlib import Path

from lm.config.schema import RunConfig
from lm.console.terminal import Terminal
from lm.data.corpus import Corpus
from lm.files.atomic import write_text, writing
from lm.training.finetune import start_from
from lm.training.out_of_memory import explaining_out_of_memory
from lm.training.plot import Points, rate_curve
from lm.training.setup import build_learner
from lm.training.step import Step

PLOT = Path("find-lr.svg")
_LOWEST, _HIGHEST = 1e-6, 10.0
_STEPS = 200
_SMOOTHING = 0.9  # of the loss, which comes from a single window
_EXPLODED = 1.1  # times the loss at the start


def find_rate(config: RunConfig, corpus: Corpus, terminal: Terminal) -> float:
    """Plot the loss against the learning rate in ./find-lr.svg, print the suggested rate and return it."""
    with explaining_out_of_memory(config, corpus.tokenizer.vocab_size):
        losses = _losses(config, corpus, terminal)
    rate = suggestion(losses)
    with writing(PLOT):
        write_text(PLOT, rate_curve(losses, rate, f"{corpus.name}, {config.model.cell.upper()}"))
    terminal.say(f"Try --lr {rate:.2g}. {PLOT} shows the loss against the learning rate.")
    return rate


def suggestion(losses: Points) -> float:
    """A tenth of the rate with the lowest loss: the loss still falls steeply there, far from exploding."""
    return min(losses, key=lambda point: point[1])[0] / 10


def _losses(config: RunConfig, corpus: Corpus, terminal: Terminal) -> Points:
    """The smoothed training loss (nats per token) at each rate, until it explodes."""
    learner = build_learner(config, corpus)
    if init_from := config.training.init_from:
        start_from(init_from, learner.network, corpus.tokenizer)
    learner.network.train()
    step = Step(learner, terminal.say)
    losses: Points = []
    mean = weight = 0.0
    try:
        with terminal.progress() as progress:
            for number in range(_STEPS + 1):
                rate = _LOWEST * (_HIGHEST / _LOWEST) ** (number / _STEPS)
                loss = step(number, rate).item()
                mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
                weight = _SMOOTHING * weight + (1 - _SMOOTHING)
                if not math.isfinite(loss) or (losses and mean / weight > _EXPLODED * losses[0][1]):
                    break
                losses.append((rate, mean / weight))
                progress("Trying learning rates", number / _STEPS)
    finally:
        learner.windows.close()
    return losses
