"""A GPU draws the same tokens as the host. Most tests run on a CPU."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.config.schema import CELL_NAMES, ModelConfig, SamplingConfig
from lm.errors import UserError
from lm.generation.decoder import NetworkDecoder
from lm.generation.gpu_sampling import GPUSampling, random_numbers
from lm.generation.scheduler import Scheduler
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.generation.gpu_streams import FEATURES, ids, run, scheduler_of
from tests.generation.streams import VOCAB, LogitsOfGPU, SamplingOnGPU, network_of

pytestmark = pytest.mark.usefixtures("recorded_steps")

JOB = st.tuples(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9),  # prompt
    st.sampled_from(FEATURES),
    st.integers(0, 2**31 - 1),  # seed
    st.integers(1, 45),  # limit
)


@pytest.mark.slow
@given(
    cell=st.sampled_from(CELL_NAMES),
    network=st.integers(0, 20),
    jobs=st.lists(st.tuples(JOB, st.sampled_from([0, 0, 1, 3, 20])), min_size=1, max_size=8),
)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the same for all examples
)
def test_tokens_are_those_that_the_host_draws(operations, cell, network, jobs):
    """Whatever the model, the settings and the other streams. The logits are the same to the last bit; the
    samplers round differently, which these examples are not affected by."""
    on_host, on_gpu = (scheduler_of(kind, cell, seed=network) for kind in (LogitsOfGPU, SamplingOnGPU))
    streams = [on_gpu.stream(*job, alternatives=best) for job, best in jobs]
    for (job, best), found in zip(jobs, run(on_gpu, *streams), strict=True):
        (expected,) = run(on_host, on_host.stream(*job, alternatives=best))
        assert ids(found) == ids(expected)
        assert len(found) == job[3]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
            assert len(ours.alternatives) == min(best, VOCAB)
            assert [other for other, _ in ours.alternatives] == [other for other, _ in theirs.alternatives]
            assert [p for _, p in ours.alternatives] == pytest.approx([p for _, p in theirs.alternatives])


@pytest.mark.slow
def test_tokens_are_those_of_the_cpu(operations):
    on_cpu, on_gpu = (scheduler_of(kind) for kind in (NetworkDecoder, SamplingOnGPU))
    for number, sampling in enumerate(FEATURES):
        job = [1, 5, 7], sampling, number, 60
        (expected,), (found,) = (run(s, s.stream(*job)) for s in (on_cpu, on_gpu))
        assert ids(found) == ids(expected)
        assert [t.logprob for t in found] == pytest.approx([t.logprob for t in expected], abs=1e-4)


def test_streams_with_constraints_are_sampled_on_the_host():
    class OnlyFour:
        complete = False

        def allowed(self):
            return torch.arange(VOCAB) == 4

        def accept(self, token):
            pass

    class Nothing(OnlyFour):
        def allowed(self):
            return torch.zeros(VOCAB, dtype=torch.bool)

    alone = scheduler_of(SamplingOnGPU)
    (expected,) = run(alone, alone.stream([1], SamplingConfig(), 5, 100))
    scheduler = scheduler_of(SamplingOnGPU)
    free = scheduler.stream([1], SamplingConfig(), 5, 100)
    four = scheduler.stream([1], SamplingConfig(), 5, 100, constraints=[OnlyFour()])
    biased = scheduler.stream([1], SamplingConfig(), 5, 100, bias={7: 100.0})
    states = scheduler.stream([1], SamplingConfig(), 5, 100, keep_states=True)
    found = run(scheduler, free, four, biased, states)
    assert found[0] == expected
    assert ids(found[3]) == ids(expected)
    assert found[3][0].state is not None
    assert (set(ids(found[1])), set(ids(found[2]))) == ({4}, {7})
    free = scheduler.stream([1], SamplingConfig(), 5, 100)
    stuck = scheduler.stream([1], SamplingConfig(), 5, 100, constraints=[Nothing()])
    with pytest.raises(UserError, match="no token is allowed"):
        run(scheduler, stuck)
    assert run(scheduler, free) == [expected]


def test_the_gpu_keeps_no_huge_penalty_windows():
    scheduler = scheduler_of(SamplingOnGPU)
    sampling = SamplingConfig(presence_penalty=0.1, repetition_window=10**9)
    accepted = [GPUSampling.accepts(scheduler.stream([1], sampling, 1, limit)) for limit in (1000, 10**6)]
    assert accepted == [True, False]
    assert GPUSampling.accepts(scheduler.stream([1], SamplingConfig(repetition_window=10**9), 1, 10**6))


@given(seed=st.integers(-(2**70), 2**70), calls=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_random_numbers_are_those_of_python(seed, calls):
    scheduler = scheduler_of(NetworkDecoder)
    streams = [scheduler.stream([1], SamplingConfig(), seed + number, 5) for number in range(2)]
    expected = [random.Random(seed + number) for number in range(2)]
    for count in calls:
        drawn = random_numbers([streams[0], None, streams[1]], count)
        assert drawn[::2].tolist() == [[each.random() for _ in range(count)] for each in expected]
        assert not drawn[1].any()


def test_texts_end_as_on_the_cpu():
    """With the end of a document or a stop string, whole and streamed."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", ["a small boat, and a long night\n" * 20])
    network = RecurrentLM(ModelConfig(hidden_size=24), tokenizer.vocab_size).eval()
    on_cpu = LanguageModel(network, tokenizer)
    on_gpu = LanguageModel(network, tokenizer, decoder=SamplingOnGPU(network))
    for settings_ in ({}, {"stop": ["a", "ab"]}, {"stop": ["\n"], "alternatives": 2, "temperature": 1.5}):
        expected, found = (
            model.generate(["a", "", "small"], num_samples=4, seed=3, max_new_tokens=150, **settings_)
            for model in (on_cpu, on_gpu)
        )
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        assert len({len(one.tokens) for one in found}) > 3
    assert "".join(piece.text for piece in on_gpu.stream("a", seed=3, max_new_tokens=150)) == (
        on_cpu.generate("a", seed=3, max_new_tokens=150)[0].text
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_on_a_gpu_tokens_are_those_that_the_host_draws(cell, precision, monkeypatch):
    """Captured for real. Log-probabilities are close as long as the tokens are the same."""
    monkeypatch.undo()
    network = network_of(cell).cuda()
    decoders = LogitsOfGPU(network, precision), NetworkDecoder(network, precision)
    on_host, on_gpu = (Scheduler(decoder, VOCAB, (0,)) for decoder in decoders)
    jobs = [([1, 5, 7], FEATURES[number % len(FEATURES)], number, 60) for number in range(130)]
    found = run(on_gpu, *(on_gpu.stream(*job, alternatives=2) for job in jobs))
    expected = run(on_host, *(on_host.stream(*job, alternatives=2) for job in jobs))
    assert sum(map(len, found)) == 60 * len(jobs)
    same = 0
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            if one.token != other.token:  # two candidates that differ by rounding
                break
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3 if precision == "fp32" else 0.1)
            same += 1
    assert same > 0.9 * 60 * len(jobs)
    (alone,) = run(on_gpu, on_gpu.stream(*jobs[77], alternatives=2))
    assert alone == found[77]
