"""The values of `auto` settings, chosen for the text, the budget and the machine.

Small networks learn most in the first minute, larger ones by the tenth, and a text that is read many times
needs dropout. docs/log.md has the measurements behind the constants.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch

from lm.config.resolved import NetworkConfig, RecipeConfig, ResolvedConfig
from lm.config.schema import (
    AUTOMATIC_DROPOUTS,
    DEFAULT_TIME,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from lm.config.settings import settings_of
from lm.data.batches import Windows
from lm.data.streaming import StreamedWindows
from lm.model.cells import CELLS
from lm.model.device import Precision, autocast
from lm.model.network import RecurrentLM
from lm.training.optimizer import make_optimizer

SIZES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_TOKENS_PER_WEIGHT = 5.0  # that a network should read at least
_PROBES = 3  # timed steps; the first warms up
# Peak learning rates for 256 units; they fall with the square root of the size.
_RATES = {"rnn": 6e-3, "gru": 8e-3, "lstm": 1.5e-2}
# Input and weight dropout as a share of the other dropouts.
_INPUT_SHARE = 0.5
_WEIGHT_SHARE = {"rnn": 0.0, "gru": 0.0, "lstm": 0.5}


def resolve(
    config: RunConfig,
    windows: Windows | StreamedWindows,
    vocab_size: int,
    device: torch.device,
    precision: Precision,
) -> ResolvedConfig:
    """The settings with a number in place of every `auto`.

    The hidden size is the largest for which the budget lets the network read several tokens per weight. For
    a time budget, a few steps of each size are timed to find out how many tokens that is.
    """
    model, training = config.model, config.training
    if model.embedding_size == "auto":
        model = dataclasses.replace(model, embedding_size=embedding_size(vocab_size))
    dropouts = [name for name in AUTOMATIC_DROPOUTS if getattr(model, name) == "auto"]
    if "auto" in (model.hidden_size, training.lr) or dropouts:
        budget = _Budget(training, windows, vocab_size, device, precision)
        if model.hidden_size == "auto":
            network, tokens = _largest_network(model, budget)
        else:
            network = NetworkConfig.of(model)
            tokens = budget.tokens(network)
        per_epoch = (windows.steps_per_epoch or math.inf) * windows.tokens_per_step  # streams never end
        dropout = _dropout(tokens / per_epoch, parameters(network, vocab_size) / per_epoch)
        shares = {"input_dropout": _INPUT_SHARE, "weight_dropout": _WEIGHT_SHARE[model.cell]}
        values: dict[str, Any] = {name: round(shares.get(name, 1.0) * dropout, 2) for name in dropouts}
        model = dataclasses.replace(network, **values)
        if training.lr == "auto":
            rate = _RATES[model.cell] * (256 / network.hidden_size) ** 0.5
            training = dataclasses.replace(training, lr=float(f"{rate:.2g}"))
    return ResolvedConfig.of(dataclasses.replace(config, model=model, training=training))


def _largest_network(model: ModelConfig, budget: _Budget) -> tuple[NetworkConfig, float]:
    """The largest network that the budget can teach, and the number of tokens it will read."""
    chosen, tokens = None, 0.0
    for size in SIZES:
        larger = NetworkConfig.of(dataclasses.replace(model, hidden_size=size))
        read = budget.tokens(larger)
        if chosen and read < _TOKENS_PER_WEIGHT * recurrent_weights(larger):
            break
        chosen, tokens = larger, read
    assert chosen  # the first size is always accepted
    return chosen, tokens


@dataclasses.dataclass(frozen=True)
class _Budget:
    """How much text a training can read."""

    training: TrainingConfig
    windows: Windows | StreamedWindows
    vocab_size: int
    device: torch.device
    precision: Precision

    def tokens(self, model: NetworkConfig) -> float:
        """The number of tokens a network reads within the budget."""
        steps: float = self.training.steps or 0
        if self.training.epochs and self.windows.steps_per_epoch:
            steps = self.training.epochs * self.windows.steps_per_epoch
        if not steps:
            # This rank's streams, one micro-batch at a time; the other ranks read theirs meanwhile.
            rows, parts = self.windows.rows, self.training.accumulate
            seconds = parts * self._seconds_per_part(model, (rows.stop - rows.start) // parts)
            steps = (self.training.max_time or DEFAULT_TIME) / seconds
        return steps * self.windows.tokens_per_step

    def _seconds_per_part(self, model: NetworkConfig, streams: int) -> float:
        """Measured time to learn from a window of this many streams."""
        recipe = {name: getattr(self.training, name) for name in settings_of(TrainingConfig)}
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            network = RecurrentLM(model, self.vocab_size).to(self.device)
            tokens = torch.randint(self.vocab_size, (streams, self.training.bptt), device=self.device)
            optimizer = make_optimizer(network, RecipeConfig(**recipe | {"lr": 1e-3}), self.precision)
            begin = 0.0
            for probe in range(_PROBES):
                if probe == 1:
                    begin = time.perf_counter()
                with autocast(self.device, self.precision):
                    loss, _, _ = network.loss(tokens, tokens)
                optimizer.scaler.scale(loss).backward()
                optimizer.step()
                loss.item()  # waits for the device
        return (time.perf_counter() - begin) / (_PROBES - 1)


def parameters(model: NetworkConfig, vocab_size: int) -> int:
    """The number of weights of a network, by arithmetic: building it takes memory, and torch's "meta"
    device imports the compiler, which takes seconds."""
    hidden, width = model.hidden_size, model.embedding_size
    biases = 2 * len(CELLS[model.cell].gates) * hidden * model.layers + vocab_size
    projection = hidden * width if width != hidden else 0
    decoder = projection if model.tie else vocab_size * hidden
    return recurrent_weights(model) + vocab_size * width + decoder + biases


def recurrent_weights(model: NetworkConfig) -> int:
    """The number of weights in the recurrent matrices. Embedding tables are looked up, not multiplied."""
    hidden = model.hidden_size
    inputs = model.embedding_size + (model.layers - 1) * hidden
    return len(CELLS[model.cell].gates) * hidden * (inputs + model.layers * hidden)


def embedding_size(vocab_size: int) -> int:
    """64 numbers distinguish a hundred characters; words need a few hundred."""
    return 32 * max(1, round(14 * vocab_size**0.36 / 32))


def _dropout(epochs: float, weights_per_token: float) -> float:
    """None for a text that is read a few times, up to 0.5 for one that is read a hundred times.

    Less for a network with fewer than two weights per token of the text, which cannot memorize it. The
    embedding tables count as well: words are memorized there.
    """
    share = min(max(0.16 * math.log(max(epochs, 1) / 3), 0.0), 0.5)
    return share * min(weights_per_token / 2, 1.0)
