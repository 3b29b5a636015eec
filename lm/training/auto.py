"""The values of `auto` settings, chosen for the text, the budget and the machine.

Small networks learn most in the first minute, larger ones by the tenth, and a text that is read many times
needs dropout. On a GPU, which reads a small text a hundred times a minute, the best size depends on the
number of passes over the text; on a CPU, on the number of tokens read. docs/log.md has the measurements
behind the constants.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.config.resolved import NetworkConfig, RecipeConfig, ResolvedConfig
from lm.config.schema import (
    AUTOMATIC_DROPOUTS,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from lm.data.batches import Windows, divide_streams
from lm.data.corpus import Corpus
from lm.data.streaming import StreamedWindows
from lm.model.device import Precision
from lm.model.size import parameter_count, recurrent_weights
from lm.training.state import Learner
from lm.training.step import Step

CPU_STREAMS = 32
WINDOW = 64  # tokens
SIZES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_TOKENS_PER_WEIGHT = 5.0  # minimum number of tokens that a network reads
# Peak learning rates for 256 units; they fall with the square root of the size.
_RATES = {"rnn": 6e-3, "gru": 8e-3, "lstm": 1.5e-2}
_LEAST_RATE = 1 / 16  # smallest share of `_RATES` in fine-tuning
# Input and weight dropout as a share of the other dropouts.
_INPUT_SHARE = 0.5
_WEIGHT_SHARE = {"rnn": 0.0, "gru": 0.0, "lstm": 0.5}

_SAMPLED_TYPES = 2000  # in a sampled softmax, at least
_TYPES_PER_SAMPLED = 16  # in a larger vocabulary

# A text that a GPU reads again and again (log.md, "On a GPU"). A token of a large vocabulary carries more
# information than a character, so texts are measured in bits: tokens times the log of the vocabulary size.
_EPOCHS_PER_DENSITY = 180.0  # epochs needed for each weight per bit of the text
_DENSITIES = 0.25, 1.25  # weights per bit: up to the first, one pass is enough; the second is the most tried
_LONG_TEXT = 2_000_000  # tokens from which more streams per step pay off
_WINDOW_SHARE = 8  # tokens of a window for each stream of a short text
_LARGE = 512  # units from which bfloat16 is as fast as float16
_MANY_TYPES = 1000  # token types from which the vocabulary is one of words


def window_shape(
    config: RunConfig, corpus: Corpus, device: torch.device, min_streams: int
) -> tuple[int, int]:
    """The number of parallel streams and the length of their windows: those of the settings, or for `auto`
    what fits the device and the text, but at least `min_streams` streams.

    Each stream of a text has at least one whole window. For a short text, there are fewer streams (a
    network needs few, but tokens to look back at), then shorter windows.
    """
    streams, length = usual_shape(config, corpus, device)
    if config.data.streaming:
        return streams, length
    bptt, fixed = config.training.bptt, config.training.batch_size != "auto"
    min_streams = max(min_streams, len(config.data.mix or ()))
    while (room := shortest_stream(config, corpus, streams)) < length:
        more_streams = not fixed and streams // 2 >= min_streams
        if more_streams and (bptt != "auto" or streams * _WINDOW_SHARE > length):
            streams //= 2
        elif bptt == "auto" and length > 1:
            length = max(room, 1) if fixed else length // 2
        elif more_streams:
            streams //= 2
        else:
            break  # the settings do not fit the text
    return streams, length


def shortest_stream(config: RunConfig, corpus: Corpus, streams: int) -> int:
    """The number of tokens that the shortest of `streams` streams has; 0 if there are too few or too many."""
    mix = config.data.mix or (1.0,)
    lengths = corpus.parts if config.data.mix else [len(corpus.train.tokens)]
    if not len(mix) <= streams <= sum(lengths):
        return 0
    return min(length // count for length, count in zip(lengths, divide_streams(streams, mix), strict=True))


def training_precision(name: str, chosen: Precision, model: NetworkConfig, device: torch.device) -> Precision:
    """The precision in which `model` is trained, where `choose_precision` returned `chosen` for `name`.

    On a GPU, `auto` is fp16 for small layers: torch uses cuDNN's persistent kernels for them in float16, but
    not in bfloat16, and not for a GRU (`use_persist_device_heuristics` in RNN.cpp). At 256 units they are 1.6
    times as fast for an LSTM and 2.9 times for an RNN, at 512 no faster (H200, docs/log.md).
    """
    small = model.cell != "gru" and model.hidden_size < _LARGE
    replaced = name == "auto" and chosen is Precision.BF16 and device.type == "cuda" and small
    return Precision.FP16 if replaced else chosen


def usual_shape(config: RunConfig, corpus: Corpus, device: torch.device) -> tuple[int, int]:
    """`window_shape` for a text with enough windows: `auto` then chooses what keeps the device busy."""
    streams, length = config.training.batch_size, config.training.bptt
    if streams == "auto":
        streams = CPU_STREAMS
        if device.type == "cuda":  # more streams are faster, but a short text gains more from more steps
            short = len(corpus.train.tokens) < _LONG_TEXT and not config.data.streaming
            streams = 64 if short else 128
    return streams, WINDOW if length == "auto" else length


def resolve(
    config: RunConfig,
    corpus: Corpus,
    windows: Windows | StreamedWindows,
    device: torch.device,
    precision: Precision,
) -> ResolvedConfig:
    """The settings with a number in place of every `auto`.

    The hidden size is the largest for which the budget lets the network read several tokens per weight. For
    a time budget, a few steps of each size are timed to find out how many tokens that is.
    """
    training = dataclasses.replace(config.training, batch_size=windows.batch_size, bptt=windows.bptt)
    model = config.model
    vocab_size = corpus.tokenizer.vocab_size
    size = training.sampled_softmax
    if size == "auto":
        size = sample_size(vocab_size, device)
    if config.data.streaming or size >= vocab_size:
        size = 0
    training = dataclasses.replace(training, sampled_softmax=size)
    if model.embedding_size == "auto":
        model = dataclasses.replace(model, embedding_size=embedding_size(vocab_size))
    dropouts = [name for name in AUTOMATIC_DROPOUTS if getattr(model, name) == "auto"]
    if "auto" in (model.hidden_size, training.lr) or dropouts:
        budget = _Budget(training, corpus, windows, device, precision, dropouts)
        text = (windows.steps_per_epoch or math.inf) * windows.tokens_per_step  # streams never end
        model, training = fitted(model, training, text, vocab_size, device, budget.tokens)
    return ResolvedConfig.of(dataclasses.replace(config, model=model, training=training))


def fitted(
    model: ModelConfig,
    training: TrainingConfig,
    text: float,
    vocab_size: int,
    device: torch.device,
    tokens_in_budget: Callable[[NetworkConfig], float],
) -> tuple[NetworkConfig, TrainingConfig]:
    """`model` and `training` with hidden size, dropouts and learning rate for a text of `text` tokens.

    `tokens_in_budget` is the number of tokens that a network reads within the budget.
    """
    on_gpu = device.type == "cuda"
    dropouts = [name for name in AUTOMATIC_DROPOUTS if getattr(model, name) == "auto"]
    if model.hidden_size == "auto":
        network, tokens = _largest_network(model, text, vocab_size, on_gpu, tokens_in_budget)
    else:
        network = NetworkConfig.of(model)
        tokens = tokens_in_budget(network)
    dropout = _dropout(tokens / text, parameter_count(network, vocab_size) / text, on_gpu)
    network = _with_dropout(network, dropouts, dropout)
    if training.lr == "auto":
        rate = _RATES[model.cell] * (256 / network.hidden_size) ** 0.5
        if on_gpu:
            assert training.batch_size != "auto"
            rate *= _gpu_rate(training.batch_size, vocab_size)
        training = dataclasses.replace(training, lr=float(f"{rate:.2g}"))
    return network, training


def fine_tuning_rate(fresh: float, excess: float) -> float:
    """The learning rate for a network that is already trained, where `fresh` is that for a new one.

    Args:
        fresh: the learning rate of `fitted`.
        excess: how much higher the network's loss is on the new text than on its own, in nats per character.

    A text like its own needs small steps, or they destroy more than they add. A text unlike it needs those of
    a new network, since most has to be learned again. docs/log.md, "Fine-tuning", has the measurements.
    """
    share = min(max(max(excess, 0.0) ** 2, _LEAST_RATE), 1.0)
    return float(f"{share * fresh:.2g}")


def _largest_network(
    model: ModelConfig,
    text: float,
    vocab_size: int,
    on_gpu: bool,
    tokens_in_budget: Callable[[NetworkConfig], float],
) -> tuple[NetworkConfig, float]:
    """The largest network that the budget can teach and the memory of a GPU holds, and the number of tokens
    it will read."""
    chosen, tokens = None, 0.0
    for size in SIZES:
        larger = NetworkConfig.of(dataclasses.replace(model, hidden_size=size))
        try:
            read, weights = tokens_in_budget(larger), recurrent_weights(larger)
        except torch.OutOfMemoryError:
            if chosen is None:
                raise
            break
        enough = read >= _TOKENS_PER_WEIGHT * weights
        if on_gpu:
            enough = enough and weights <= _repeatable(read, text, vocab_size)
        if chosen and not enough:
            break
        chosen, tokens = larger, read
    assert chosen  # the first size is always accepted
    return chosen, tokens


def _with_dropout(network: NetworkConfig, names: list[str], dropout: float) -> NetworkConfig:
    """`network` with the dropouts called `names` in proportion to `dropout`."""
    shares = {"input_dropout": _INPUT_SHARE, "weight_dropout": _WEIGHT_SHARE[network.cell]}
    values: dict[str, Any] = {name: round(shares.get(name, 1.0) * dropout, 2) for name in names}
    return dataclasses.replace(network, **values)


def _repeatable(read: float, text: float, vocab_size: int) -> float:
    """The largest number of recurrent weights for a text of this size: it grows with the number of epochs."""
    least, most = _DENSITIES
    density = min(max(read / text / _EPOCHS_PER_DENSITY, least), most)
    return density * text * math.log2(max(vocab_size, 2))


def _gpu_rate(streams: int, vocab_size: int) -> float:
    """The learning rate on a GPU as a share of that on a CPU: more for more streams, less for words."""
    more = (min(max(streams, 64), 128) / 64) ** (1 / 6)
    return more * (0.5 if vocab_size > _MANY_TYPES else 1.0)


@dataclasses.dataclass(frozen=True)
class _Budget:
    """How much text a training run can read."""

    training: TrainingConfig
    corpus: Corpus
    windows: Windows | StreamedWindows
    device: torch.device
    precision: Precision
    dropouts: list[str]  # those that are `auto`

    def tokens(self, model: NetworkConfig) -> float:
        """The number of tokens a network reads within the budget."""
        steps: float = self.training.steps or 0
        if self.training.epochs and self.windows.steps_per_epoch:
            steps = self.training.epochs * self.windows.steps_per_epoch
        if not steps:
            # This rank's streams, one micro-batch at a time; the other ranks read theirs meanwhile.
            parts = self.training.accumulate
            seconds = parts * self._seconds_per_part(model, self.windows.row_count // parts)
            steps = self.training.time_budget / seconds
        return steps * self.windows.tokens_per_step

    def _seconds_per_part(self, model: NetworkConfig, streams: int) -> float:
        """Measured time to learn from a window of this many streams."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # where drawing masks takes a noticeable part of a step
            model = _with_dropout(model, self.dropouts, 0.5)
        with torch.random.fork_rng(devices=[self.device] if on_gpu else []):
            return seconds_per_call(self._step(model, streams), self.device)

    def _step(self, model: NetworkConfig, streams: int) -> Callable[[], Tensor]:
        """The training step of a network, on random tokens."""
        tokenizer, bptt = self.corpus.tokenizer, self.windows.bptt
        recipe = dataclasses.asdict(self.training) | {"lr": 1e-3, "batch_size": streams, "accumulate": 1}
        tokens = np.random.default_rng(0).integers(tokenizer.vocab_size, size=2 * streams * bptt)
        windows = Windows(tokens.astype(tokenizer.dtype), streams, bptt, tokenizer.eos, self.device)
        config = ResolvedConfig(DataConfig(), model, RecipeConfig(**recipe))
        precision = training_precision(self.training.precision, self.precision, model, self.device)
        learner = Learner.create(config, self.corpus, windows, self.device, precision)
        step, numbers = Step(learner, notify=lambda line: None), itertools.count()
        return lambda: step(next(numbers), learner.optimizer.rate)


def seconds_per_call(compute: Callable[[], Tensor], device: torch.device) -> float:
    """The time that `compute` takes when it is called again and again. Its result is on the device."""
    warm_up, timed = (5, 30) if device.type == "cuda" else (1, 2)  # libraries choose kernels at first calls
    for _ in range(warm_up):
        compute().item()  # waits for the device
    begin = time.perf_counter()
    for _ in range(timed - 1):
        compute()
    compute().item()
    return (time.perf_counter() - begin) / timed


def embedding_size(vocab_size: int) -> int:
    """The embedding size: 64 numbers distinguish a hundred characters; words need a few hundred."""
    return 32 * max(1, round(14 * vocab_size**0.36 / 32))


def sample_size(vocab_size: int, device: torch.device) -> int:
    """The number of token types in a sampled softmax; 0 where the softmax over all types is not slow."""
    size = max(_SAMPLED_TYPES, vocab_size // _TYPES_PER_SAMPLED)
    return size if device.type == "cpu" and vocab_size > 3 * size else 0


def _dropout(epochs: float, weights_per_token: float, on_gpu: bool) -> float:
    """The dropout: 0 for a text that is read a few times, most for one that is read a hundred times.

    A network with few weights per token of the text cannot memorize it. On a CPU, dropout grows up to 0.5 for
    two weights; on a GPU, which can afford more, up to 0.65 for twelve. The embedding tables count as well:
    words are memorized there.
    """
    share = min(max(0.2 * math.log(max(epochs, 1) / 3), 0.0), 0.5)
    if not on_gpu:
        return share * min(weights_per_token / 2, 1.0)
    if weights_per_token < 1:
        strongest = 0.2 * weights_per_token
    else:
        strongest = min(0.2 + 0.18 * math.log(weights_per_token), 0.65)
    return share / 0.5 * strongest
