"""Small untrained networks, schedulers of them, and what the tests of the scheduler generate."""

import random
from functools import cached_property

import torch

from lm.config.schema import ModelConfig, SamplingConfig
from lm.generation.decoder import PREFILL_CHUNK, NetworkDecoder
from lm.generation.gpu_batch import GPUBatch, GPUWeights
from lm.generation.scheduler import Scheduler
from lm.model.network import RecurrentLM

VOCAB = 13


def network_of(
    cell, layers=2, tie=False, embedding_size="auto", implementation="fused", residual=True, seed=0
):
    """An untrained network whose biases matter."""
    torch.manual_seed(seed)
    config = ModelConfig(
        cell=cell,
        layers=layers,
        hidden_size=24,
        embedding_size=embedding_size,
        tie=tie,
        residual=residual,
        cell_implementation=implementation,
    )
    network = RecurrentLM(config, VOCAB)
    torch.nn.init.normal_(network.decoder.bias)
    for name, weight in network.recurrent.named_parameters():
        if "bias" in name:  # so that biases matter; those of the GRU differ by map
            torch.nn.init.normal_(weight)
    return network.eval()


class LogitsOfGPU(NetworkDecoder):
    """The computation of a GPU on any device, with tokens drawn on the host."""

    sampling_weights = None

    @cached_property
    def weights(self):
        return GPUWeights(self._network, self._precision)

    def batch(self):
        return GPUBatch(self.weights)


class SamplingOnGPU(LogitsOfGPU):
    """The computation of a GPU on any device."""

    @property
    def sampling_weights(self):
        return self.weights


def scheduler_of(cell="lstm", never=(0,)):
    return Scheduler(NetworkDecoder(network_of(cell)), VOCAB, never)


def generated(scheduler, *streams):
    return [token.token for _, token in scheduler.tokens(*streams)]


SAMPLING = SamplingConfig()
SETTINGS = [
    SamplingConfig(temperature=1.2),
    SamplingConfig(temperature=(0.3, 1.5), top_p=0.9),
    SamplingConfig(top_k=4, min_p=0.05),
    SamplingConfig(temperature=1.0, repetition_penalty=1.3, presence_penalty=0.2, repetition_window=8),
    SamplingConfig(temperature=1.5, no_repeat_ngram=3, frequency_penalty=0.1),
    SamplingConfig(greedy=True),
    SamplingConfig(typical_p=0.7, temperature=1.4),
]


def job(number):
    choose = random.Random(number)
    prompt = [choose.randrange(1, VOCAB) for _ in range(choose.choice([1, 5, PREFILL_CHUNK + 3]))]
    return prompt, SETTINGS[number % len(SETTINGS)], number, choose.randrange(1, 60)


class Slow:
    """A constraint that allows everything, and whose masks take `seconds` of a clock."""

    complete = False

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def allowed(self):
        self.clock.now += self.seconds
        return torch.ones(VOCAB, dtype=torch.bool)

    def accept(self, token):
        pass


class Clock:
    """A clock that only `Slow` advances."""

    now = 0.0

    def perf_counter(self):
        return self.now
