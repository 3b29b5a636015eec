"""What `auto` in the settings stands for: a recipe made for the text, the budget and the machine.

Small networks learn most in the first minute, larger ones in the tenth, and a text that is read many
times needs dropout. The figures behind the constants are in docs/log.md.
"""

from __future__ import annotations

import dataclasses
import math
import time

import torch

from lm.config.schema import AUTOMATIC_DROPOUTS, DEFAULT_TIME, ModelConfig, RunConfig
from lm.data.batches import Windows
from lm.data.streaming import StreamedWindows
from lm.model.cells import CELLS
from lm.model.device import autocast, choose_precision
from lm.model.network import RecurrentLM
from lm.training.optimizer import make_optimizer

SIZES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_TOKENS_PER_WEIGHT = 5.0  # that a network should read at least
_PROBES = 3  # steps that are timed, the first of which warms up
# The highest learning rates for 256 units; they fall with the square root of the size.
_RATES = {"rnn": 6e-3, "gru": 8e-3, "lstm": 1.5e-2}
_OF_THE_INPUTS = 0.5  # how much of the other dropouts' share they lose
_OF_THE_RECURRENCE = {"rnn": 0.0, "gru": 0.0, "lstm": 0.5}  # likewise


def sized(
    config: RunConfig, windows: Windows | StreamedWindows, vocab_size: int, device: torch.device
) -> RunConfig:
    """The settings with a number wherever they said auto.

    The hidden size is the largest with which the budget lets the network read several tokens for
    each of its weights; how many that are in a budget of time is found by timing a few steps.
    """
    model, training = config.model, config.training
    if model.embedding_size == "auto":
        model = dataclasses.replace(model, embedding_size=embedding_size(vocab_size))
        config = dataclasses.replace(config, model=model)
    dropouts = [name for name in AUTOMATIC_DROPOUTS if getattr(model, name) == "auto"]
    if "auto" not in (model.hidden_size, training.lr) and not dropouts:
        return config
    if model.hidden_size != "auto":
        tokens = _tokens(config, model, windows, vocab_size, device)
    else:
        for size in SIZES:
            larger = dataclasses.replace(config.model, hidden_size=size)
            read = _tokens(config, larger, windows, vocab_size, device)
            if size > SIZES[0] and read < _TOKENS_PER_WEIGHT * recurrent_weights(larger):
                break
            model, tokens = larger, read
    per_epoch = (windows.steps_per_epoch or math.inf) * windows.tokens_per_step  # a stream has no end
    share = _dropout(tokens / per_epoch, parameters(model, vocab_size) / per_epoch)
    for name in dropouts:
        part = {"input_dropout": _OF_THE_INPUTS, "weight_dropout": _OF_THE_RECURRENCE[model.cell]}
        model = dataclasses.replace(model, **{name: round(part.get(name, 1.0) * share, 2)})
    if training.lr == "auto":
        rate = _RATES[model.cell] * (256 / model.hidden_size) ** 0.5
        training = dataclasses.replace(training, lr=float(f"{rate:.2g}"))
    return dataclasses.replace(config, model=model, training=training)


def embedding_size(vocab_size: int) -> int:
    """64 numbers tell some hundred characters apart, words take a few hundred."""
    return 32 * max(1, round(14 * vocab_size**0.36 / 32))


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """The weights of a network of that shape, which is not made for it: that takes memory, or on torch's
    "meta" device its compiler, which is seconds away."""
    hidden, width = model.hidden_size, model.embedding_size
    biases = 2 * CELLS[model.cell].gates * hidden * model.layers + vocab_size
    projection = hidden * width if width != hidden else 0
    decoder = projection if model.tie else vocab_size * hidden
    return recurrent_weights(model) + vocab_size * width + decoder + biases


def _tokens(
    config: RunConfig,
    model: ModelConfig,
    windows: Windows | StreamedWindows,
    vocab_size: int,
    device: torch.device,
) -> float:
    """How many tokens the network will read within the budget."""
    training = config.training
    steps = training.steps or (training.epochs or 0) * windows.steps_per_epoch
    if not steps:
        budget = training.max_time or DEFAULT_TIME
        # Those of this process, a part at a time: the others read theirs meanwhile.
        streams = (windows.rows.stop - windows.rows.start) // training.accumulate
        seconds = training.accumulate * _seconds_a_part(config, model, vocab_size, device, streams)
        steps = budget / seconds
    return steps * windows.tokens_per_step


def recurrent_weights(model: ModelConfig) -> int:
    """Those of the layers; the tables of token vectors are looked up, not multiplied."""
    hidden = model.hidden_size
    inputs = model.embedding_size + (model.layers - 1) * hidden
    return CELLS[model.cell].gates * hidden * (inputs + model.layers * hidden)


def _dropout(epochs: float, weights_per_token: float) -> float:
    """Nothing for a text that is read a few times, up to a half for one read a hundred times; less
    where there are not two weights for each token of the text, which cannot learn it by heart. The
    tables of token vectors count, too: words are learned by heart in them."""
    share = min(max(0.16 * math.log(max(epochs, 1) / 3), 0.0), 0.5)
    return share * min(weights_per_token / 2, 1.0)


def _seconds_a_part(
    config: RunConfig, model: ModelConfig, vocab_size: int, device: torch.device, streams: int
) -> float:
    """The time that it takes to learn from a window of so many streams."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = RecurrentLM(model, vocab_size).to(device)
        shape = (streams, config.training.bptt)
        tokens = torch.randint(vocab_size, shape, device=device)
        optimizer = make_optimizer(network, dataclasses.replace(config.training, lr=1e-3))
        for probe in range(_PROBES):
            if probe == 1:
                begin = time.perf_counter()
            with autocast(device, choose_precision(config.training.precision, device)):
                loss, _, _ = network.loss(tokens, tokens)
            optimizer.scaler.scale(loss).backward()
            optimizer.step()
            loss.item()  # waits for the device
    return (time.perf_counter() - begin) / (_PROBES - 1)
