"""Streams enter and leave the batch; the text of each depends on nothing else."""

import threading

import pytest
import torch

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.generation.decoder import PREFILL_CHUNK, NetworkDecoder
from lm.generation.scheduler import Scheduler
from tests.generation.streams import (
    SAMPLING,
    SETTINGS,
    VOCAB,
    generated,
    job,
    network_of,
    scheduler_of,
)


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


@pytest.mark.parametrize("sampling", SETTINGS)
def test_streams_of_one_prompt_read_it_once_and_depend_on_nothing_else(sampling, monkeypatch):
    prompt = [1 + i % 11 for i in range(3 * PREFILL_CHUNK)]
    scheduler = scheduler_of()
    expected = [generated(scheduler, scheduler.stream(prompt, sampling, seed, 30)) for seed in range(4)]
    chunks, prefill = [], scheduler._decoder.prefill

    def fails_once(*args):
        chunks.append(args)
        if len(chunks) == 2:
            raise MemoryError
        return prefill(*args)

    monkeypatch.setattr(scheduler._decoder, "prefill", fails_once)
    stream = scheduler.stream(prompt, sampling, 5, 30)
    failing, ended, *forks = (stream.fork(seed) for seed in (8, 9, *range(4)))
    with pytest.raises(MemoryError):
        generated(scheduler, failing)  # after it has read a chunk
    ended.end()
    texts = [[] for _ in (ended, *forks)]
    for number, token in scheduler.tokens(ended, *forks):
        texts[number].append(token.token)
    assert texts == [[], *expected] and len(chunks) == 4


def test_alternatives_are_the_most_likely_tokens():
    network = network_of("rnn")
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
    decoder = NetworkDecoder(network_of("gru"))
    scheduler = Scheduler(decoder, VOCAB)
    stream = scheduler.stream([1, 2], SamplingConfig(), 1, 6, keep_states=True)
    tokens = [token for _, token in scheduler.tokens(stream)]
    batch = decoder.batch()
    batch.add(decoder.prefill(torch.tensor([1]), decoder.initial_state()))
    for before, token in zip([2, *(t.token for t in tokens)], tokens, strict=False):
        batch.step(torch.tensor([before]))
        assert all(map(torch.equal, batch.state(0), token.state))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, -1e39])
def test_a_bias_that_logits_cannot_have_is_rejected(value):
    with pytest.raises(UserError, match="between -1e"):
        scheduler_of().stream([1], SAMPLING, 1, 5, bias={4: value})
    scheduler = scheduler_of()
    never = scheduler.stream([1], SamplingConfig(temperature=3.0), 1, 100, bias={4: float("-inf")})
    assert 4 not in generated(scheduler, never)


def test_a_prompt_with_a_token_that_does_not_exist_is_rejected():
    for prompt in ([1, VOCAB], [-1]):
        with pytest.raises(UserError, match="between 0 and 12"):
            scheduler_of().stream(prompt, SAMPLING, 1, 5)
