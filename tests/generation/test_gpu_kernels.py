"""The kernels of a GPU compute what the operations of torch compute that they replace."""

import random
import threading

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import CELL_NAMES, SamplingConfig
from lm.generation.gpu_batch import BLOCK, GPUWeights
from lm.generation.gpu_draw import chosen_draw, draw_with_torch, draws_alike
from lm.generation.gpu_kernels import FEW_TYPES, kernels_for, waves
from lm.generation.gpu_tables import Tables
from lm.generation.samplers import SamplingTensors
from lm.generation.scheduler import Scheduler
from tests.generation.kernels_on_cpu import kernels_on_cpu, needs_compiler, use_kernels
from tests.generation.streams import VOCAB, SamplingOnGPU, generated, network_of, scheduler_of

CPU = torch.device("cpu")
TOLERANCES = {"fp32": 1e-5, "fp16": 0.01, "bf16": 0.03}
FEW, MANY = [1, 2, 13, 65, 300, FEW_TYPES], [65, 128, 1000, 5000]  # token types


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
@given(
    layers=st.integers(1, 3),
    tie=st.booleans(),
    residual=st.booleans(),
    embedding_size=st.sampled_from(["auto", 5]),
    seed=st.integers(0, 50),
)
@settings(max_examples=8, deadline=None)
def test_states_and_logits_are_those_of_torch(cell, precision, layers, tie, residual, embedding_size, seed):
    network = network_of(cell, layers, tie, embedding_size, residual=residual, seed=seed)
    weights = GPUWeights(network, precision)
    weights.kernels = kernels_on_cpu(weights.dtype)
    check_steps(weights)


def check_steps(weights):
    """Compare two steps with the kernels with those of torch."""
    tokens = torch.randint(0, VOCAB, (BLOCK,), device=weights.device)
    kernels, states = weights.kernels, [waves(weights.empty_block()) for _ in range(2)]
    tolerance = TOLERANCES[weights.precision.value]
    for _ in range(2):
        weights.kernels = None
        expected = weights.compute(tokens, states[0])
        weights.kernels = kernels
        found = weights.compute(tokens, states[1])
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(states[1], states[0], atol=tolerance, rtol=tolerance)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_rounded_as_by_torch(dtype):
    special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38]
    h = torch.cat([torch.tensor(special), torch.randn(1000)]).expand(2, -1).contiguous()
    embedding, tokens = torch.randn(VOCAB, 5).to(dtype), torch.tensor([3, 12])
    expected = torch.cat([embedding[tokens], h.to(dtype)], dim=1)
    found = kernels_on_cpu(dtype).join(embedding, tokens, h)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def few_threads(monkeypatch):
    """Fewer of them, because on a CPU they take turns."""
    monkeypatch.setattr("lm.generation.gpu_kernels.FEW_TYPES", 64)


@needs_compiler
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("vocab_size", FEW)
def test_tokens_are_those_of_torch(vocab_size, strength):
    assert draws_alike(kernels_on_cpu().draw, strength, vocab_size, CPU)


@needs_compiler
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("vocab_size", MANY)
def test_tokens_of_a_large_vocabulary_are_those_of_torch(few_threads, vocab_size, strength):
    assert draws_alike(kernels_on_cpu(many_types=True).draw, strength, vocab_size, CPU)


@needs_compiler
def test_a_large_vocabulary_has_many_threads():
    assert draws_alike(kernels_on_cpu(many_types=True).draw, 0.0, FEW_TYPES + 1, CPU)


FILTERS = [
    *({"top_k": k} for k in (1, 2, 5)),
    *({"top_p": p} for p in (0.001, 0.3, 0.9)),
    *({"typical_p": p} for p in (0.001, 0.3, 0.9)),
    *({"min_p": p} for p in (0.2, 0.99)),
    {"greedy": True},
    {"top_k": 9, "typical_p": 0.8, "top_p": 0.7, "min_p": 0.01},
]


@needs_compiler
@pytest.mark.parametrize("vocab_size", [11, 1000])
def test_each_filter_keeps_what_it_keeps_in_torch(few_threads, vocab_size):
    """Random numbers from 0 to 1 draw every token that is kept."""
    kernels = kernels_on_cpu(many_types=vocab_size == 1000)
    torch.manual_seed(0)
    logits = torch.randn(vocab_size).mul(3).expand(BLOCK, -1).contiguous()
    for each in FILTERS:
        sampling = SamplingTensors.stack([SamplingConfig(**each)] * BLOCK, vocab_size, CPU)
        drawn = []
        for draw in (kernels.draw, draw_with_torch):
            tables, last = Tables.create(1, BLOCK, CPU), torch.zeros(BLOCK, dtype=torch.long)
            tables.uniforms.copy_(torch.linspace(0.0, 0.9999, BLOCK, dtype=torch.float64))
            draw(logits, torch.zeros(vocab_size), sampling, None, tables, last)
            drawn.append(last.tolist())
        assert drawn[0] == drawn[1], each


@needs_compiler
@pytest.mark.parametrize("vocab_size", [5, 60, 1200])
def test_many_equal_logits_and_forbidden_tokens(few_threads, vocab_size):
    """In bfloat16, many logits are equal: then the order of the tokens decides which ones a filter keeps."""
    choose = random.Random(vocab_size)
    configs = [
        SamplingConfig(
            temperature=choose.choice([0.0, 0.3, 1.0, 3.0]),
            top_k=choose.choice([0, 1, 3, 40]),
            top_p=choose.choice([1.0, 0.9, 0.3, 0.01]),
            typical_p=choose.choice([1.0, 0.95, 0.2]),
            min_p=choose.choice([0.0, 0.05, 0.9]),
        )
        for _ in range(BLOCK)
    ]
    torch.manual_seed(0)
    logits = (3 * torch.randn(BLOCK, vocab_size)).clamp(max=4).bfloat16().float()
    suppressed = torch.where(torch.rand(vocab_size) < 0.3, -torch.inf, 0.0)
    suppressed[choose.randrange(vocab_size)] = 0.0
    sampling = SamplingTensors.stack(configs, vocab_size, CPU)
    kernels, drawn = kernels_on_cpu(many_types=vocab_size == 1200), []
    for draw in (kernels.draw, draw_with_torch):
        tables, last = Tables.create(1, BLOCK, CPU), torch.zeros(BLOCK, dtype=torch.long)
        tables.uniforms.copy_(torch.rand(1, BLOCK, generator=torch.Generator().manual_seed(1)))
        draw(logits, suppressed, sampling, None, tables, last)
        drawn.append(last)
    assert not suppressed[drawn[0]].any()
    assert (drawn[0] == drawn[1]).sum() >= BLOCK - 2  # rounding may decide between two tokens


@pytest.mark.parametrize("what", ["last", "tokens", "logprobs", "counts", "ring", "next"])
def test_a_kernel_that_draws_something_else_is_found(what):
    def wrong(logits, suppressed, sampling, window, tables, last):
        draw_with_torch(logits, suppressed, sampling, window, tables, last)
        values = {"last": last, "tokens": tables.tokens, "logprobs": tables.logprobs, **vars(window)}
        if tables.number == 1:
            values[what][..., :16] += 1

    assert draws_alike(draw_with_torch, 1.0, VOCAB, CPU)
    assert not draws_alike(wrong, 1.0, VOCAB, CPU)


def fails(name, *_):
    raise RuntimeError(f"{name.decode()} is too large\nfor this device")


def does_nothing(*_):
    pass


@needs_compiler
@pytest.mark.parametrize(
    ("failing", "how", "warning"),
    [
        (
            {b"join"},
            fails,
            "without its own kernels and is therefore slower: join is too large for",
        ),
        (
            {b"advance"},
            does_nothing,
            "own kernels and is therefore slower: they compute something",
        ),
        ({b"draw"}, fails, "its kernel for drawing and is therefore slower: draw is too large for"),
        (
            {b"draw"},
            does_nothing,
            "its kernel for drawing and is therefore slower: it draws other",
        ),
    ],
)
def test_kernels_that_do_not_work_are_not_used(monkeypatch, capsys, failing, how, warning):
    right = kernels_on_cpu()._launch
    monkeypatch.setattr("lm.generation.gpu_kernels._WARNING", threading.Lock())
    use_kernels(monkeypatch, lambda name, *rest: (how if name in failing else right)(name, *rest))
    network, plain = network_of("lstm"), scheduler_of()
    scheduler = Scheduler(SamplingOnGPU(network), VOCAB, (0,))
    streams = [each.stream([1], SamplingConfig(), 3, 20) for each in (plain, scheduler)]
    expected, found = (
        generated(each, stream) for each, stream in zip((plain, scheduler), streams, strict=True)
    )
    assert found == expected
    error = capsys.readouterr().err
    assert warning in error and error.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_gpu_runs_the_kernels(cell, precision, capsys):
    weights = GPUWeights(network_of(cell, layers=3, embedding_size=5).to("cuda"), precision)
    assert weights.kernels, capsys.readouterr().err
    check_steps(weights)
    assert chosen_draw(weights) == weights.kernels.draw, capsys.readouterr().err
    for vocab_size in (*FEW, FEW_TYPES + 1, 5000):
        kernels = kernels_for(weights.device, weights.dtype, vocab_size > FEW_TYPES)
        assert draws_alike(kernels.draw, 1.0, vocab_size, weights.device)
