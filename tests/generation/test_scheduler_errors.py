"""Errors and interruptions end the streams they belong to, and no other."""

import threading
import time

import pytest
import torch

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.cpu_batch import CPUBatch
from lm.generation.decoder import PREFILL_CHUNK
from lm.generation.stream import Stream
from tests.generation.streams import SAMPLING, VOCAB, Clock, Slow, generated, scheduler_of


def test_a_stream_without_any_allowed_token_fails_alone():
    class Nothing:
        complete = False

        def allowed(self):
            return torch.zeros(VOCAB, dtype=torch.bool)

        def accept(self, token):
            raise AssertionError

    scheduler = scheduler_of()
    other = scheduler.stream([1], SamplingConfig(), 5, 30)
    stuck = scheduler.stream([1], SamplingConfig(), 1, 30, constraints=[Nothing()])
    with pytest.raises(UserError, match="no token is allowed"):
        generated(scheduler, stuck)
    alone = scheduler_of()
    assert generated(scheduler, other) == generated(alone, alone.stream([1], SamplingConfig(), 5, 30))


@pytest.mark.parametrize("method", ["allowed", "accept"])
def test_any_error_of_a_constraint_belongs_to_its_stream(monkeypatch, method):
    def fails(*_):
        raise ZeroDivisionError

    class Broken(Slow):
        pass

    setattr(Broken, method, fails)
    alone = scheduler_of()
    expected = generated(alone, alone.stream([1], SAMPLING, 5, 30))
    scheduler = scheduler_of()
    other = scheduler.stream([1], SAMPLING, 5, 30)
    others = scheduler.tokens(other)
    found = [next(others)[1].token]
    with pytest.raises(ZeroDivisionError):
        generated(scheduler, scheduler.stream([1], SAMPLING, 1, 30, constraints=[Broken(Clock(), 0.0)]))
    assert found + [token.token for _, token in others] == expected


def test_a_step_that_fails_ends_the_running_streams_and_no_later_one(monkeypatch):
    scheduler = scheduler_of()
    first, second = (scheduler.tokens(scheduler.stream([1], SAMPLING, seed, 30)) for seed in (1, 2))
    next(first), next(second)

    def fails(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lm.generation.host_sampling.sample", fails)
    for tokens in (first, second):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(tokens)
    monkeypatch.undo()
    assert len(generated(scheduler, scheduler.stream([1], SAMPLING, 1, 30))) == 30


def test_an_interruption_ends_the_running_streams_and_no_later_one(monkeypatch):
    scheduler = scheduler_of()
    expected = generated(scheduler, scheduler.stream([1], SAMPLING, 7, 30))
    first, second, third = (scheduler.stream([1], SAMPLING, seed, 30) for seed in (1, 2, 3))
    others = scheduler.tokens(second, third)
    tokens = scheduler.tokens(first)
    next(tokens), next(others)
    first.end()
    remove = CPUBatch.remove

    def interrupted(batch, row):
        remove(batch, row)
        raise KeyboardInterrupt  # before the list of streams has followed

    monkeypatch.setattr(CPUBatch, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(scheduler.tokens(scheduler.stream([1], SAMPLING, 4, 30)))
    monkeypatch.undo()
    with pytest.raises(UserError, match="interrupted"):
        list(others)
    assert generated(scheduler, scheduler.stream([1], SAMPLING, 7, 30)) == expected


def test_an_interruption_while_the_prompt_of_another_thread_is_read_ends_its_stream(monkeypatch):
    scheduler, errors = scheduler_of(), []
    mine, theirs = (scheduler.stream([1] * (2 * PREFILL_CHUNK), SAMPLING, seed, 30) for seed in (1, 2))
    decoder, prefill = scheduler._decoder, scheduler._decoder.prefill

    def consume():
        try:
            generated(scheduler, theirs)
        except UserError as error:
            errors.append(str(error))

    thread = threading.Thread(target=consume, daemon=True)

    def interrupted_by_the_second_prompt(*args):
        if thread.ident:
            raise KeyboardInterrupt
        thread.start()
        while not scheduler._idle:
            time.sleep(0.001)
        return prefill(*args)

    monkeypatch.setattr(decoder, "prefill", interrupted_by_the_second_prompt)
    with pytest.raises(KeyboardInterrupt):
        generated(scheduler, mine)
    thread.join(5)
    assert errors == ["the generation was interrupted."]


@pytest.mark.parametrize("moment", range(1, 10))
def test_an_error_reaches_the_consumer_whenever_it_comes(moment):
    class Fails(Stream):
        """Fails as soon as what its consumer looks at has been read this many times."""

        reads = 0

        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name in ("ready", "ended", "error"):
                Fails.reads += 1
                if Fails.reads == moment:
                    self.fail(ZeroDivisionError())
            return value

    scheduler = scheduler_of()
    stream = scheduler.stream([1], SAMPLING, 1, 1000)
    stream.__class__ = Fails
    with pytest.raises(ZeroDivisionError):
        generated(scheduler, stream)
