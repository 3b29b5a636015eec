"""Streams on a GPU do not affect each other, and steps are recorded again only when they have to be."""

import threading

import pytest

from lm.config.schema import SamplingConfig
from lm.generation import gpu_sampling
from lm.generation.decoder import NetworkDecoder
from lm.generation.gpu_sampling import GROUP, GPUSampling
from lm.generation.scheduler import Scheduler
from tests.generation.gpu_streams import FEATURES, ids, run, scheduler_of
from tests.generation.streams import VOCAB, SamplingOnGPU, network_of
from tests.model import recorded

pytestmark = pytest.mark.usefixtures("recorded_steps")


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
