"""Streams that a GPU samples, on any device."""

from lm.config.schema import SamplingConfig
from lm.generation.scheduler import Scheduler
from tests.generation.streams import SETTINGS, VOCAB, network_of

FEATURES = [
    *SETTINGS,
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=(2.0, 0.0), frequency_penalty=0.4, repetition_window=3),
    SamplingConfig(temperature=1.5, presence_penalty=1.0, repetition_window=1),
    SamplingConfig(temperature=1.2, repetition_penalty=1.5, repetition_window=10**9),
    SamplingConfig(top_k=3, top_p=0.8, min_p=0.1, typical_p=0.9, repetition_penalty=1.2),
]


def scheduler_of(kind, cell="lstm", never=(0,), seed=0):
    return Scheduler(kind(network_of(cell, seed=seed)), VOCAB, never)


def run(scheduler, *streams):
    """The tokens of each stream."""
    results = [[] for _ in streams]
    for index, token in scheduler.tokens(*streams):
        results[index].append(token)
    return results


def ids(tokens):
    return [token.token for token in tokens]
