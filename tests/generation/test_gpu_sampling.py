"""A GPU draws the same tokens as the host. Most tests run on a CPU (tests/model/recorded.py)."""

import random
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.config.schema import CELL_NAMES, ModelConfig, SamplingConfig
from lm.errors import UserError
from lm.generation import gpu_sampling
from lm.generation.decoder import NetworkDecoder
from lm.generation.gpu_sampling import GROUP, GPUSampling, random_numbers
from lm.generation.samplers import SamplingTensors, draw_without_waiting, sample
from lm.generation.scheduler import Scheduler
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.generation.kernels_on_cpu import needs_compiler, use_kernels
from tests.generation.strategies import SAMPLINGS
from tests.generation.streams import SETTINGS, VOCAB, LogitsOfGPU, SamplingOnGPU, network_of
from tests.model import recorded

FEATURES = [
    *SETTINGS,
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=(2.0, 0.0), frequency_penalty=0.4, repetition_window=3),
    SamplingConfig(temperature=1.5, presence_penalty=1.0, repetition_window=1),
    SamplingConfig(temperature=1.2, repetition_penalty=1.5, repetition_window=10**9),
    SamplingConfig(top_k=3, top_p=0.8, min_p=0.1, typical_p=0.9, repetition_penalty=1.2),
]


@pytest.fixture(autouse=True)
def recorded_steps(monkeypatch):
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)


@pytest.fixture(params=["torch", pytest.param("kernels", marks=needs_compiler)])
def operations(request, monkeypatch):
    """What computes a step: operations of torch, or the kernels of a GPU."""
    if request.param == "kernels":
        use_kernels(monkeypatch)


@pytest.fixture(autouse=True)
def no_warnings(recorded_steps, capsys):
    """Every recorded step agrees with the plain one."""
    yield
    assert "slower" not in capsys.readouterr().err


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


@pytest.mark.slow
def test_streams_that_come_and_go_do_not_affect_each_other(operations):
    """The tokens and their log-probabilities are the same to the last bit, in every block and row."""
    jobs = [
        ([1 + number % 7] * (1 + number % 3), FEATURES[number % len(FEATURES)], number, 5 + 7 * number % 40)
        for number in range(90)
    ]
    alone = []
    for job in jobs[::5]:
        scheduler = scheduler_of(SamplingOnGPU, "gru")
        (tokens,) = run(scheduler, scheduler.stream(*job))
        alone.append(tokens)
    scheduler = scheduler_of(SamplingOnGPU, "gru")
    first = scheduler.tokens(*(scheduler.stream(*job) for job in jobs[:70]))
    together = [[] for _ in jobs]
    for _ in range(300):
        index, token = next(first)
        together[index].append(token)
    second = scheduler.tokens(*(scheduler.stream(*job) for job in jobs[70:]))
    for tokens, offset in ((second, 70), (first, 0)):
        for index, token in tokens:
            together[offset + index].append(token)
    assert together[::5] == alone  # all of them would take long


@pytest.mark.slow
def test_a_stream_that_is_left_in_the_middle_of_a_group_disturbs_no_other(operations):
    alone = scheduler_of(SamplingOnGPU)
    (expected,) = run(alone, alone.stream([1], SamplingConfig(), 5, 100))
    scheduler = scheduler_of(SamplingOnGPU)
    left = scheduler.stream([1], SamplingConfig(top_k=3), 6, 10_000)
    tokens = scheduler.tokens(left)
    for _ in range(3 * GROUP + 5):
        next(tokens)
    other = scheduler.stream([1], SamplingConfig(), 5, 100)
    tokens.close()
    (found,) = run(scheduler, other)
    assert found == expected
    assert left not in scheduler._gpu.streams


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


def test_streams_whose_states_cannot_be_sent_fail_alone(monkeypatch):
    alone = scheduler_of(SamplingOnGPU)
    (expected,) = run(alone, alone.stream([1], SamplingConfig(), 5, 60))
    scheduler = scheduler_of(SamplingOnGPU)
    tokens = scheduler.tokens(scheduler.stream([1], SamplingConfig(), 5, 60))
    found = [next(tokens)[1] for _ in range(8)]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):

        def enlarged(self, size):
            raise RuntimeError("out of memory")

        patch.setattr("lm.generation.gpu_draw.Window.enlarged", enlarged)
        run(scheduler, scheduler.stream([1] * 9, SamplingConfig(presence_penalty=1.0), 6, 60))
    assert [*found, *(token for _, token in tokens)] == expected


def test_a_failure_loses_no_token(monkeypatch):
    alone = scheduler_of(SamplingOnGPU)
    (expected,) = run(alone, alone.stream([1], SamplingConfig(), 5, 60))
    scheduler = scheduler_of(SamplingOnGPU)
    stream = scheduler.stream([1], SamplingConfig(), 5, 60)
    place = GPUSampling._place

    def out_of_memory(self, stream):
        raise RuntimeError("out of memory")

    tokens = scheduler.tokens(stream)
    found = [next(tokens)[1] for _ in range(8)]
    monkeypatch.setattr(GPUSampling, "_place", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(scheduler, scheduler.stream([1], SamplingConfig(), 6, 60))
    monkeypatch.setattr(GPUSampling, "_place", place)
    assert [*found, *(token for _, token in tokens)] == expected


def test_first_tokens_arrive_at_once_and_later_ones_in_groups(monkeypatch):
    scheduler = scheduler_of(SamplingOnGPU)
    sizes = []
    launch = gpu_sampling._Block.launch
    monkeypatch.setattr(
        gpu_sampling._Block, "launch", lambda block, steps: (sizes.append(steps), launch(block, steps))
    )
    run(scheduler, scheduler.stream([1], SamplingConfig(), 5, 70))
    assert [size for size in sizes if size] == [1, 1, 2, 4, 8, 16, 32, 6]


def test_extreme_settings_disturb_no_other_stream(operations):
    alone = scheduler_of(SamplingOnGPU)
    (expected,) = run(alone, alone.stream([1], SamplingConfig(), 5, 30))
    scheduler = scheduler_of(SamplingOnGPU)
    streams = [
        scheduler.stream([1], sampling, 5, 30)
        for sampling in (
            SamplingConfig(),
            SamplingConfig(temperature=1e-40),
            SamplingConfig(temperature=(0.0, 1e-30)),
            SamplingConfig(top_k=2**70),
            SamplingConfig(temperature=1e30),
            SamplingConfig(repetition_penalty=1e-30, presence_penalty=1e30),
            SamplingConfig(repetition_penalty=1e-45, frequency_penalty=-1e38),
        )
    ]
    texts = run(scheduler, *streams)
    assert texts[0] == expected
    assert all(len(text) == 30 and set(ids(text)) <= set(range(VOCAB)) for text in texts)


def test_where_recording_is_impossible_steps_run_one_by_one_after_one_warning(monkeypatch, capsys):
    def fails(compute):
        raise RuntimeError("this driver is too old\nand more")

    scheduler = scheduler_of(SamplingOnGPU)
    (expected,) = run(scheduler, scheduler.stream([1], SamplingConfig(), 5, 30))
    monkeypatch.setattr("lm.model.cuda_graph.capture", fails)
    monkeypatch.setattr("lm.generation.gpu_batch._WARNING", threading.Lock())
    scheduler = scheduler_of(SamplingOnGPU)
    streams = [
        scheduler.stream([1], sampling, 5, 30) for sampling in (SamplingConfig(), SamplingConfig(top_k=3))
    ]
    assert run(scheduler, *streams)[0] == expected
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "generation does not run as a CUDA graph and is therefore slower: this driver is too old" in error


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


def test_the_steps_that_are_used_most_are_not_recorded_again(monkeypatch):
    recordings = []
    monkeypatch.setattr(gpu_sampling, "_KINDS", 2)
    monkeypatch.setattr(
        "lm.model.cuda_graph.capture", lambda compute: recordings.append(1) or recorded.record(compute)
    )
    scheduler = scheduler_of(SamplingOnGPU)
    usual = SamplingConfig()
    for sampling in (usual, SamplingConfig(top_k=3), usual, SamplingConfig(top_p=0.9), usual):
        run(scheduler, scheduler.stream([1], sampling, 7, 5))
    assert len(recordings) == 3


def test_recorded_steps_can_be_dropped_and_recorded_again(monkeypatch):
    check_dropping(monkeypatch, lambda: scheduler_of(SamplingOnGPU))


@pytest.mark.gpu
def test_on_a_gpu_recorded_steps_can_be_dropped_and_recorded_again(monkeypatch):
    """A graph that is freed must not take anything along that another one needs."""
    monkeypatch.undo()
    network = network_of("lstm").cuda()
    check_dropping(monkeypatch, lambda: Scheduler(NetworkDecoder(network, "bf16"), VOCAB, (0,)))


def check_dropping(monkeypatch, new_scheduler):
    monkeypatch.setattr(gpu_sampling, "_KINDS", 2)
    kinds = [SamplingConfig(top_k=3), SamplingConfig(), SamplingConfig(top_p=0.9), SamplingConfig(min_p=0.1)]
    jobs = [([1], sampling, 7, 40) for sampling in kinds]
    expected = []
    for job in jobs:
        scheduler = new_scheduler()
        expected += run(scheduler, scheduler.stream(*job))
    others = new_scheduler()
    other = others.tokens(others.stream([1], SamplingConfig(), 1, 10_000))
    scheduler = new_scheduler()
    for _ in range(3):
        for job, tokens in zip(jobs, expected, strict=True):
            next(other)  # the graphs of another scheduler stay in use
            assert run(scheduler, scheduler.stream(*job)) == [tokens]


@pytest.mark.slow
@given(
    samplings=st.lists(SAMPLINGS, min_size=1, max_size=6),
    size=st.integers(2, 60),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.5, 2.0, 8.0]),
    impossible=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_same_tokens_are_drawn_without_waiting(samplings, size, seed, spread, impossible):
    choose = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(len(samplings), size, generator=choose, dtype=torch.float64)
    if impossible:
        logits[:, 0] = -torch.inf
    tensors = SamplingTensors.stack(samplings, size, torch.device("cpu"))
    scaled = logits / tensors.temperature
    # Many numbers for the same logits: what is drawn from them shows which tokens are left.
    for number in torch.linspace(0, 1, 41, dtype=torch.float64)[:-1]:
        uniforms = (number + torch.rand(len(samplings), generator=choose, dtype=torch.float64) / 41).clamp(
            max=1
        )
        expected = sample(logits, uniforms, tensors)
        assert torch.equal(draw_without_waiting(scaled, uniforms, tensors), expected)
