"""Streams come and go; what each of them writes depends on nothing else."""

import gc
import random
import threading
import time

import pytest
import torch

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.decoder import PREFILL_CHUNK, NetworkDecoder
from lm.generation.scheduler import Scheduler
from tests.generation.test_decoder import make

VOCAB = 13


def streams_of(cell="lstm", never=(0,)):
    return Scheduler(NetworkDecoder(make(cell)), VOCAB, never)


def written(streams, *stream):
    return [token.token for _, token in streams.tokens(*stream)]


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
def test_what_a_stream_writes_does_not_depend_on_its_neighbours(cell):
    alone = {}
    for number in range(20):
        streams = streams_of(cell)
        alone[number] = written(streams, streams.add(*job(number)))
        assert len(alone[number]) == job(number)[3]
        assert 0 not in alone[number]

    streams, together, lock = streams_of(cell), {}, threading.Lock()

    def client(numbers):
        for number in numbers:
            tokens = written(streams, streams.add(*job(number)))
            with lock:
                together[number] = tokens

    threads = [threading.Thread(target=client, args=(range(first, 20, 5),)) for first in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_several_streams_of_one_consumer_are_those_of_several():
    streams = streams_of()
    jobs = [streams.add(*job(number)) for number in range(9)]
    texts = [[] for _ in jobs]
    for number, token in streams.tokens(*jobs):
        texts[number].append(token.token)
    for number, text in enumerate(texts):
        other = streams_of()
        assert written(other, other.add(*job(number))) == text


def test_a_stream_whose_reader_leaves_ends_at_the_next_step():
    streams = streams_of()
    left, other = (streams.add([1], SamplingConfig(), seed, 10_000) for seed in (1, 2))
    tokens = streams.tokens(left)
    next(tokens)
    tokens.close()
    assert left.ended
    others = streams.tokens(other)
    made = left.generated
    for _ in range(5):
        next(others)
    assert left.generated == made
    assert streams.running == (other,)
    others.close()


def test_a_stream_nobody_reads_costs_nothing():
    streams = streams_of()
    streams.add([1], SamplingConfig(), 1, 10_000)
    time.sleep(0.05)
    assert not streams.running


def test_alternatives_are_the_likeliest_tokens():
    network = make("rnn")
    streams = Scheduler(NetworkDecoder(network), VOCAB)
    stream = streams.add([1, 5, 7], SamplingConfig(greedy=True), 1, 1, alternatives=3)
    ((_, token),) = streams.tokens(stream)
    logprobs = network(torch.tensor([[1, 5, 7]]))[0][0, -1].log_softmax(-1)
    best = logprobs.topk(3)
    assert [other for other, _ in token.alternatives] == best.indices.tolist()
    assert [p for _, p in token.alternatives] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert token.token == best.indices[0].item()
    assert token.logprob == pytest.approx(best.values[0].item(), abs=1e-5)


def test_no_ngram_comes_twice():
    streams = streams_of()
    tokens = written(streams, streams.add([1], SamplingConfig(temperature=0.3, no_repeat_ngram=3), 1, 150))
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    assert len(set(grams)) == len(grams)
    free = written(streams, streams.add([1], SamplingConfig(temperature=0.3), 1, 150))
    grams = list(zip(free, free[1:], free[2:], strict=False))
    assert len(set(grams)) < len(grams)  # it would have


def test_a_bias_leads_to_a_token_and_away_from_it():
    streams = streams_of()
    always = streams.add([1], SamplingConfig(), 1, 40, bias={4: 100.0})
    assert set(written(streams, always)) == {4}
    never = streams.add([1], SamplingConfig(temperature=3.0), 1, 400, bias={4: -100.0})
    assert 4 not in written(streams, never)


def test_the_penalties_look_at_the_window_and_no_further():
    """With a penalty that nothing survives, each token waits for the window to pass."""
    streams = streams_of(never=())
    sampling = SamplingConfig(temperature=1.0, presence_penalty=1000.0, repetition_window=5)
    tokens = written(streams, streams.add([1, 2, 3], sampling, 1, 200))
    text = [1, 2, 3, *tokens]
    for place in range(3, len(text)):
        assert text[place] not in text[max(0, place - 5) : place]
    assert any(text[place] in text[place - 6 : place] for place in range(6, len(text)))


def test_the_temperature_goes_evenly_over_the_length():
    streams = streams_of()
    stream = streams.add([1], SamplingConfig(temperature=(0.2, 1.2)), 1, 11)
    heights = [stream.temperature]
    for _ in streams.tokens(stream):
        heights.append(stream.temperature)
    assert heights[:11] == pytest.approx([0.2 + 0.1 * i for i in range(11)])
    # It is what the tokens are drawn with: greedy at first, anything at last.
    rising = written(streams, streams.add([1], SamplingConfig(temperature=(0.0, 50.0)), 1, 60))
    greedy = written(streams, streams.add([1], SamplingConfig(greedy=True), 1, 60))
    assert rising[0] == greedy[0]
    assert len(set(rising[30:])) > 8 > len(set(greedy[30:]))


def test_settings_that_leave_no_token_end_that_stream_with_one_line_and_no_other():
    class Nothing:
        complete = False

        def allowed(self):
            return torch.zeros(VOCAB, dtype=torch.bool)

        def accept(self, token):
            raise AssertionError

    streams = streams_of()
    other = streams.add([1], SamplingConfig(), 5, 30)
    stuck = streams.add([1], SamplingConfig(), 1, 30, constraints=[Nothing()])
    with pytest.raises(UserError, match="no token is allowed"):
        written(streams, stuck)
    alone = streams_of()
    assert written(streams, other) == written(alone, alone.add([1], SamplingConfig(), 5, 30))


def test_odd_settings_trouble_nobody():
    alone = streams_of()
    expected = written(alone, alone.add([1], SamplingConfig(), 5, 30))
    streams = streams_of()
    other = streams.add([1], SamplingConfig(), 5, 30)
    odd = [
        streams.add([1], sampling, 1, 30)
        for sampling in (
            SamplingConfig(temperature=1e-40),
            SamplingConfig(temperature=(0.0, 1e-30)),
            SamplingConfig(top_k=2**70),
            SamplingConfig(temperature=1e30),
            SamplingConfig(repetition_penalty=1e-30, presence_penalty=1e30),
        )
    ]
    texts = [[] for _ in range(6)]
    for number, token in streams.tokens(other, *odd):
        texts[number].append(token.token)
    assert texts[0] == expected
    assert all(len(text) == 30 for text in texts)
    greedy = streams.add([1], SamplingConfig(greedy=True), 1, 30)
    assert texts[1] == texts[2] == written(streams, greedy)
    for token in (-1, VOCAB):
        with pytest.raises(UserError, match="logit bias"):
            streams.add([1], SamplingConfig(), 1, 5, bias={token: 1.0})


def test_states_come_with_the_tokens_if_asked_for():
    decoder = NetworkDecoder(make("gru"))
    streams = Scheduler(decoder, VOCAB)
    stream = streams.add([1, 2], SamplingConfig(), 1, 6, keep_states=True)
    tokens = [token for _, token in streams.tokens(stream)]
    batch = decoder.batch()
    batch.add(decoder.prefill(torch.tensor([1]), decoder.initial_state()))
    for before, token in zip([2, *(t.token for t in tokens)], tokens, strict=False):
        batch.step(torch.tensor([before]))
        assert all(map(torch.equal, batch.state(0), token.state))


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
    scheduler = streams_of()
    abandoned = scheduler.tokens(scheduler.add([1], SAMPLING, 1, 50))
    next(abandoned)
    cycle = [abandoned]
    cycle.append(cycle)  # so that only the garbage collector can close the iterator
    gc.disable()
    try:
        del abandoned, cycle
        stream = scheduler.add([1], SAMPLING, 2, 5, constraints=[CollectsGarbage()])
        tokens = []
        thread = threading.Thread(target=lambda: tokens.extend(written(scheduler, stream)), daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive() and len(tokens) == 5
    finally:
        gc.enable()
