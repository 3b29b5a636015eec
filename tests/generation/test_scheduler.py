"""Streams enter and leave the batch; the text of each depends on nothing else."""

import gc
import random
import threading
import time

import pytest
import torch

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.cpu_batch import CPUBatch
from lm.generation.decoder import PREFILL_CHUNK, NetworkDecoder
from lm.generation.scheduler import Scheduler
from tests.generation.test_decoder import make

VOCAB = 13


def scheduler_of(cell="lstm", never=(0,)):
    return Scheduler(NetworkDecoder(make(cell)), VOCAB, never)


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


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_stream_does_not_depend_on_its_neighbors(cell):
    alone = {}
    for number in range(20):
        scheduler = scheduler_of(cell)
        alone[number] = generated(scheduler, scheduler.stream(*job(number)))
        assert len(alone[number]) == job(number)[3]
        assert 0 not in alone[number]

    scheduler, together, lock = scheduler_of(cell), {}, threading.Lock()

    def client(numbers):
        for number in numbers:
            tokens = generated(scheduler, scheduler.stream(*job(number)))
            with lock:
                together[number] = tokens

    threads = [threading.Thread(target=client, args=(range(first, 20, 5),)) for first in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_one_consumer_of_several_streams_gets_what_several_consumers_get():
    scheduler = scheduler_of()
    jobs = [scheduler.stream(*job(number)) for number in range(9)]
    texts = [[] for _ in jobs]
    for number, token in scheduler.tokens(*jobs):
        texts[number].append(token.token)
    for number, text in enumerate(texts):
        other = scheduler_of()
        assert generated(other, other.stream(*job(number))) == text


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
    assert scheduler.running == (other,)
    others.close()


def test_a_stream_without_a_consumer_costs_nothing():
    scheduler = scheduler_of()
    scheduler.stream([1], SamplingConfig(), 1, 10_000)
    time.sleep(0.05)
    assert not scheduler.running


def test_alternatives_are_the_most_likely_tokens():
    network = make("rnn")
    scheduler = Scheduler(NetworkDecoder(network), VOCAB)
    stream = scheduler.stream([1, 5, 7], SamplingConfig(greedy=True), 1, 1, alternatives=3)
    ((_, token),) = scheduler.tokens(stream)
    logprobs = network(torch.tensor([[1, 5, 7]]))[0][0, -1].log_softmax(-1)
    best = logprobs.topk(3)
    assert [other for other, _ in token.alternatives] == best.indices.tolist()
    assert [p for _, p in token.alternatives] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert token.token == best.indices[0].item()
    assert token.logprob == pytest.approx(best.values[0].item(), abs=1e-5)


def test_no_ngram_is_repeated():
    scheduler = scheduler_of()
    tokens = generated(
        scheduler, scheduler.stream([1], SamplingConfig(temperature=0.3, no_repeat_ngram=3), 1, 150)
    )
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    assert len(set(grams)) == len(grams)
    free = generated(scheduler, scheduler.stream([1], SamplingConfig(temperature=0.3), 1, 150))
    grams = list(zip(free, free[1:], free[2:], strict=False))
    assert len(set(grams)) < len(grams)  # as it would otherwise


def test_a_bias_makes_a_token_certain_or_impossible():
    scheduler = scheduler_of()
    always = scheduler.stream([1], SamplingConfig(), 1, 40, bias={4: 100.0})
    assert set(generated(scheduler, always)) == {4}
    never = scheduler.stream([1], SamplingConfig(temperature=3.0), 1, 400, bias={4: -100.0})
    assert 4 not in generated(scheduler, never)


def test_penalties_apply_to_the_window_only():
    """With a prohibitive penalty, a token can return only after it has left the window."""
    scheduler = scheduler_of(never=())
    sampling = SamplingConfig(temperature=1.0, presence_penalty=1000.0, repetition_window=5)
    tokens = generated(scheduler, scheduler.stream([1, 2, 3], sampling, 1, 200))
    text = [1, 2, 3, *tokens]
    for i in range(3, len(text)):
        assert text[i] not in text[max(0, i - 5) : i]
    assert any(text[i] in text[i - 6 : i] for i in range(6, len(text)))


def test_the_temperature_changes_linearly_over_the_length():
    scheduler = scheduler_of()
    stream = scheduler.stream([1], SamplingConfig(temperature=(0.2, 1.2)), 1, 11)
    temperatures = [stream.temperature]
    for _ in scheduler.tokens(stream):
        temperatures.append(stream.temperature)
    assert temperatures[:11] == pytest.approx([0.2 + 0.1 * i for i in range(11)])
    # Tokens are sampled with it: greedy at first, almost uniform at last.
    rising = generated(scheduler, scheduler.stream([1], SamplingConfig(temperature=(0.0, 50.0)), 1, 60))
    greedy = generated(scheduler, scheduler.stream([1], SamplingConfig(greedy=True), 1, 60))
    assert rising[0] == greedy[0]
    assert len(set(rising[30:])) > 8 > len(set(greedy[30:]))


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


def test_extreme_settings_do_not_disturb_other_streams():
    alone = scheduler_of()
    expected = generated(alone, alone.stream([1], SamplingConfig(), 5, 30))
    scheduler = scheduler_of()
    other = scheduler.stream([1], SamplingConfig(), 5, 30)
    odd = [
        scheduler.stream([1], sampling, 1, 30)
        for sampling in (
            SamplingConfig(temperature=1e-40),
            SamplingConfig(temperature=(0.0, 1e-30)),
            SamplingConfig(top_k=2**70),
            SamplingConfig(temperature=1e30),
            SamplingConfig(repetition_penalty=1e-30, presence_penalty=1e30),
        )
    ]
    texts = [[] for _ in range(6)]
    for number, token in scheduler.tokens(other, *odd):
        texts[number].append(token.token)
    assert texts[0] == expected
    assert all(len(text) == 30 for text in texts)
    greedy = scheduler.stream([1], SamplingConfig(greedy=True), 1, 30)
    assert texts[1] == texts[2] == generated(scheduler, greedy)
    for token in (-1, VOCAB):
        with pytest.raises(UserError, match="logit bias"):
            scheduler.stream([1], SamplingConfig(), 1, 5, bias={token: 1.0})


def test_states_are_reported_on_request():
    decoder = NetworkDecoder(make("gru"))
    scheduler = Scheduler(decoder, VOCAB)
    stream = scheduler.stream([1, 2], SamplingConfig(), 1, 6, keep_states=True)
    tokens = [token for _, token in scheduler.tokens(stream)]
    batch = decoder.batch()
    batch.add(decoder.prefill(torch.tensor([1]), decoder.initial_state()))
    for before, token in zip([2, *(t.token for t in tokens)], tokens, strict=False):
        batch.step(torch.tensor([before]))
        assert all(map(torch.equal, batch.state(0), token.state))


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


def test_no_stream_waits_for_the_prompts_and_masks_of_others(monkeypatch):
    """Between two tokens of each plain stream: one chunk of a prompt, and one mask that takes long."""
    clock = Clock()
    monkeypatch.setattr("lm.generation.host_sampling.time", clock)
    scheduler = scheduler_of()
    decoder, chunks = scheduler._decoder, []
    prefill = decoder.prefill
    monkeypatch.setattr(decoder, "prefill", lambda *args: chunks.append(1) or prefill(*args))
    plain = [scheduler.stream([1], SAMPLING, seed, 100) for seed in range(5)]
    long = [scheduler.stream([1] * 2000, SAMPLING, seed, 5) for seed in range(4)]
    cheap = scheduler.stream([1], SAMPLING, 1, 90, constraints=[Slow(clock, 1e-4)])
    slow = [
        scheduler.stream([1], SAMPLING, seed, 10, constraints=[Slow(clock, 0.02 + 0.01 * (seed % 2))])
        for seed in range(6)
    ]
    streams = [*plain, cheap, *slow, *long]
    advance, work = scheduler._advance, []

    def counted():
        before = [stream.generated for stream in streams], len(chunks), clock.now
        advance()
        steps = [stream.generated - count for stream, count in zip(streams, before[0], strict=True)]
        work.append((steps, len(chunks) - before[1], clock.now - before[2]))

    monkeypatch.setattr(scheduler, "_advance", counted)
    for _ in scheduler.tokens(*streams):
        pass
    assert all(stream.generated == stream.limit for stream in streams)
    assert max(chunks for _, chunks, _ in work) == 1
    assert max(seconds for *_, seconds in work) <= 0.005 + 0.03 + 1e-9
    for steps, *_ in work[1:90]:
        assert steps[:5] == [1] * 5
    for steps, *_ in work[7:90]:  # after the first mask of each
        assert steps[5] == 1  # the stream with cheap masks does not wait for the others either
    # Those with slow masks take turns.
    counts = [sum(steps[6 + number] for steps, *_ in work[:40]) for number in range(6)]
    assert min(counts) >= 4


def test_a_stream_that_starts_later_does_not_come_first_until_it_has_used_as_much_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("lm.generation.host_sampling.time", clock)
    scheduler = scheduler_of()
    *early, late = (
        scheduler.stream([1], SAMPLING, seed, 100, constraints=[Slow(clock, 0.02)]) for seed in range(4)
    )
    earlier, later = scheduler.tokens(*early), scheduler.tokens(late)
    for _ in range(30):
        next(earlier)
    before = [stream.generated for stream in early]
    for _ in range(8):
        next(later)
    assert all(stream.generated - count >= 7 for stream, count in zip(early, before, strict=True))


def test_tokens_are_delivered_while_the_prompt_of_another_consumer_is_read():
    scheduler = scheduler_of()
    long = scheduler.stream([1] * (300 * PREFILL_CHUNK), SAMPLING, 1, 1)
    short = scheduler.stream([1], SAMPLING, 2, 30)
    order = []

    def consume(name, stream):
        for _ in scheduler.tokens(stream):
            order.append(name)

    threads = [threading.Thread(target=consume, args=item) for item in (("long", long), ("short", short))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert order == ["short"] * 30 + ["long"]


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, -1e39])
def test_a_bias_that_logits_cannot_have_is_rejected(value):
    with pytest.raises(UserError, match="between -1e"):
        scheduler_of().stream([1], SAMPLING, 1, 5, bias={4: value})
    scheduler = scheduler_of()
    never = scheduler.stream([1], SamplingConfig(temperature=3.0), 1, 100, bias={4: float("-inf")})
    assert 4 not in generated(scheduler, never)


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


def test_a_prompt_with_a_token_that_does_not_exist_is_rejected():
    for prompt in ([1, VOCAB], [-1]):
        with pytest.raises(UserError, match="between 0 and 12"):
            scheduler_of().stream(prompt, SAMPLING, 1, 5)


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
