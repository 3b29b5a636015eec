"""No stream waits for long: prompts are read in chunks, and slow constraints take turns."""

import threading
import time

from lm.generation.decoder import PREFILL_CHUNK
from tests.generation.streams import SAMPLING, Clock, Slow, scheduler_of


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


def test_a_short_prompt_does_not_wait_for_a_chunk_of_each_long_one(monkeypatch):
    scheduler = scheduler_of()
    chunks, decoder = [], scheduler._decoder
    prefill = decoder.prefill
    monkeypatch.setattr(decoder, "prefill", lambda tokens, state: chunks.append(1) or prefill(tokens, state))
    many = scheduler.tokens(*(scheduler.stream([1] * 9 * PREFILL_CHUNK, SAMPLING, i, 1) for i in range(40)))
    reader = threading.Thread(target=lambda: [None for _ in many])
    reader.start()
    while len(chunks) < 60:  # all have begun
        time.sleep(0.001)
    before = len(chunks)
    next(scheduler.tokens(scheduler.stream([1, 2, 3], SAMPLING, 1, 1)))
    assert len(chunks) - before < 20
    reader.join()
