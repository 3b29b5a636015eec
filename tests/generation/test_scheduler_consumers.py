"""Consumers in several threads: they leave, are ended from elsewhere, or are garbage; the others go on."""

import gc
import random
import threading
import time

import pytest
import torch

from lm.config.schema import SamplingConfig
from lm.generation.constraints import NoRepeat
from lm.generation.decoder import PREFILL_CHUNK
from lm.generation.stream import BACKLOG
from tests.generation.streams import SAMPLING, VOCAB, generated, scheduler_of


def test_a_stream_ends_when_its_consumer_leaves():
    scheduler = scheduler_of()
    left, other = (scheduler.stream([1], SamplingConfig(), seed, 10_000) for seed in (1, 2))
    tokens = scheduler.tokens(left)
    next(tokens)
    tokens.close()
    assert left.ended
    others = scheduler.tokens(other)
    count = left.generated
    for _ in range(5):
        next(others)
    assert left.generated == count
    assert scheduler._host.streams == (other,)
    others.close()


@pytest.mark.slow
@pytest.mark.parametrize("constrained", [False, True])
def test_a_stream_pauses_while_its_consumer_does_not_keep_up(constrained):
    scheduler = scheduler_of()
    constraints = [NoRepeat(VOCAB, 50, [])] if constrained else []
    expected = generated(scheduler, scheduler.stream([1], SAMPLING, 1, 3 * BACKLOG))
    slow = scheduler.stream([1], SAMPLING, 1, 3 * BACKLOG, constraints=constraints)
    tokens = scheduler.tokens(slow)
    first = next(tokens)[1].token
    for seed in range(3):
        generated(scheduler, scheduler.stream([1], SAMPLING, seed, 2 * BACKLOG))
    assert len(slow.ready) == BACKLOG and not slow.ended
    assert [first, *(token.token for _, token in tokens)] == expected


def test_a_stream_without_a_consumer_costs_nothing():
    scheduler = scheduler_of()
    scheduler.stream([1], SamplingConfig(), 1, 10_000)
    time.sleep(0.05)
    assert not scheduler.running


def test_a_stream_can_be_ended_while_its_prompt_is_read(monkeypatch):
    scheduler = scheduler_of()
    stream = scheduler.stream([1] * 10**6, SAMPLING, 1, 10)
    chunks, decoder = [], scheduler._decoder
    prefill = decoder.prefill

    def end_later(*args):
        chunks.append(1)
        if len(chunks) == 3:
            thread = threading.Thread(target=stream.end)
            thread.start()
            thread.join()
        return prefill(*args)

    monkeypatch.setattr(decoder, "prefill", end_later)
    assert generated(scheduler, stream) == []
    assert len(chunks) == 3


def test_a_waiting_consumer_can_be_ended_from_another_thread(monkeypatch):
    scheduler = scheduler_of()
    busy, waiting = (scheduler.stream([1] * 10**6, SAMPLING, seed, 10) for seed in (1, 2))
    decoder, started = scheduler._decoder, threading.Event()
    prefill = decoder.prefill
    monkeypatch.setattr(decoder, "prefill", lambda *args: started.set() or prefill(*args))
    threads = [threading.Thread(target=generated, args=(scheduler, s)) for s in (busy, waiting)]
    threads[0].start()
    assert started.wait(20)
    threads[1].start()
    waiting.end()
    threads[1].join(20)
    assert not threads[1].is_alive() and threads[0].is_alive()
    busy.end()
    threads[0].join(20)
    assert not threads[0].is_alive()


def test_a_consumer_that_leaves_when_it_should_go_on_computing_wakes_another(monkeypatch):
    scheduler = scheduler_of()
    first = scheduler.stream([1] * (100 * PREFILL_CHUNK), SAMPLING, 1, 1)
    leaving, last = (scheduler.stream([1] * (150 * PREFILL_CHUNK), SAMPLING, seed, 1) for seed in (2, 3))
    wake = scheduler._wake

    def wake_and_end():
        wake()
        if first.ended:  # so that its consumer passes on to that of `leaving`, which ends just then
            leaving.ended = True

    monkeypatch.setattr(scheduler, "_wake", wake_and_end)
    threads = []
    for stream in (first, leaving, last):
        threads.append(threading.Thread(target=generated, args=(scheduler, stream), daemon=True))
        threads[-1].start()
        while len(scheduler._idle) < len(threads) - 1:
            time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert last.generated == 1


def test_no_waiting_consumer_is_forgotten_when_the_garbage_collector_closes_another_one():
    scheduler = scheduler_of()

    class Waiting:
        def __init__(self, served):
            self.wake, self.is_served = threading.Event(), served

        @property
        def served(self):
            cycle.clear()
            return self.is_served

    class Abandoned:
        def __del__(self):
            scheduler._pass_on()  # as `tokens` does when it is closed

    consumers = [Waiting(served) for served in (False, True, False, True)]
    scheduler._idle.update(dict.fromkeys(consumers))
    cycle = [Abandoned()]
    scheduler._wake()
    assert [consumer.wake.is_set() for consumer in consumers] == [True, True, False, True]
    assert list(scheduler._idle) == [consumers[2]]


def test_a_consumer_that_was_interrupted_while_it_waited_is_not_woken_in_place_of_another(monkeypatch):
    scheduler = scheduler_of()
    scheduler._computing = True  # in another thread

    def interrupted(event):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Event, "wait", interrupted)
        next(scheduler.tokens(scheduler.stream([1], SAMPLING, 1, 5)))
    assert not scheduler._idle


def test_a_consumer_is_woken_though_the_garbage_collector_closes_another_one_just_then():
    scheduler, cycle = scheduler_of(), []

    class Waiting:
        def __init__(self):
            self.wake = threading.Event()

        def __hash__(self):
            cycle.clear()
            return 0

    class Abandoned:
        def __del__(self):
            scheduler._pass_on()

    waiting = Waiting()
    scheduler._idle[waiting] = None
    cycle.append(Abandoned())
    scheduler._pass_on()
    assert waiting.wake.is_set() and not scheduler._idle


@pytest.mark.slow
def test_consumers_that_leave_and_are_ended_at_random_never_stop_the_others():
    scheduler = scheduler_of()
    complete = []

    def client(number):
        choose = random.Random(number)
        for _ in range(25):
            stream = scheduler.stream([1] * choose.choice([1, 2000]), SAMPLING, 1, choose.randrange(1, 30))
            fate, count = choose.choice(["leave", "end", "stay", "stay"]), 0
            if fate == "end":
                threading.Timer(choose.random() / 200, stream.end).start()
            for _ in scheduler.tokens(stream):
                count += 1
                if fate == "leave" and choose.random() < 0.2:
                    break
            complete.append(fate != "stay" or count == stream.limit)

    threads = [threading.Thread(target=client, args=[number], daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert complete == [True] * 300


class CollectsGarbage:
    """A constraint that allows everything and runs the garbage collector inside every step."""

    complete = False

    def allowed(self):
        gc.collect()
        return torch.ones(VOCAB, dtype=torch.bool)

    def accept(self, token):
        pass

    def fork(self):
        return self


@pytest.mark.slow
def test_an_abandoned_iterator_collected_inside_a_step_does_not_block_the_scheduler():
    scheduler = scheduler_of()
    abandoned = scheduler.tokens(scheduler.stream([1], SAMPLING, 1, 50))
    next(abandoned)
    cycle = [abandoned]
    cycle.append(cycle)  # so that only the garbage collector can close the iterator
    gc.disable()
    try:
        del abandoned, cycle
        stream = scheduler.stream([1], SAMPLING, 2, 5, constraints=[CollectsGarbage()])
        tokens = []
        thread = threading.Thread(target=lambda: tokens.extend(generated(scheduler, stream)), daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive() and len(tokens) == 5
    finally:
        gc.enable()
