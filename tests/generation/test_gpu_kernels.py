"""The GPU kernels compute the same as the torch operations that they replace."""

import random
import threading

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import CELL_NAMES, SamplingConfig
from lm.generation.gpu_batch import BLOCK, GPUWeights
from lm.generation.gpu_draw import DrawArguments, draw_with_torch, draws_alike
from lm.generation.samplers import SamplingTensors
from lm.generation.scheduler import Scheduler
from tests.generation.kernels_on_cpu import kernels_on_cpu, needs_compiler, use_kernels
from tests.generation.strategies import NETWORKS
from tests.generation.streams import VOCAB, SamplingOnGPU, generated, network_of, scheduler_of

CPU = torch.device("cpu")
TOLERANCES = {"fp32": 1e-5, "fp16": 0.01, "bf16": 0.03}
VOCAB_SIZES = [1, 2, 13, 65, 300, 512, 513, 1000, 5000]  # the kernel sorts 513 in another way than 512


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
@given(network=st.fixed_dictionaries(NETWORKS))
@settings(max_examples=8, deadline=None)
def test_states_and_logits_are_those_of_torch(cell, precision, network):
    weights = GPUWeights(network_of(cell, **network), precision)
    weights.kernels = kernels_on_cpu(weights.dtype)
    check_steps(weights)


def check_steps(weights):
    """Compare two steps with the kernels with those of torch."""
    tokens = torch.randint(0, VOCAB, (BLOCK,), device=weights.device)
    kernels, state = weights.kernels, torch.rand_like(weights.empty_block())
    states = [state, state.clone()]
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
    monkeypatch.setattr("lm.generation.gpu_kernels._MOST_THREADS", 64)


@needs_compiler
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_tokens_are_those_of_torch(few_threads, vocab_size, strength):
    assert draws_alike(kernels_on_cpu().draw, strength, vocab_size, CPU)


@needs_compiler
@pytest.mark.parametrize(("vocab_size", "strength"), [(300, 1.0), (1500, 0.0)])
def test_tokens_are_those_of_torch_with_all_threads(vocab_size, strength):
    assert draws_alike(kernels_on_cpu().draw, strength, vocab_size, CPU)


FILTERS = [
    *({"top_k": k} for k in (1, 2, 5)),
    *({"top_p": p} for p in (1e-20, 0.001, 0.3, 0.9)),
    *({"typical_p": p} for p in (1e-20, 0.001, 0.3, 0.9)),
    *({"min_p": p} for p in (0.2, 0.99)),
    {"greedy": True},
    {"typical_p": 0.2, "min_p": 0.5},  # the most likely token may be gone
    {"top_k": 9, "typical_p": 0.8, "top_p": 0.7, "min_p": 0.01},
]


def drawn_with_both(configs, logits, suppressed, uniforms):
    """The tokens that the kernel draws, and those that torch draws, one for each of `configs`."""
    vocab_size, results = len(suppressed), []
    sampling = SamplingTensors.stack(configs, vocab_size, CPU)
    for draw in (kernels_on_cpu().draw, draw_with_torch):
        arguments = DrawArguments.create(1, len(configs), suppressed, sampling)
        draw(logits, arguments._replace(uniforms=uniforms[None]))
        results.append(arguments.last)
    return results


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("vocab_size", [11, 1000])
@pytest.mark.parametrize("config", FILTERS)
def test_each_filter_keeps_what_it_keeps_in_torch(few_threads, config, vocab_size):
    """Random numbers from 0 to 1 draw every token that is kept."""
    torch.manual_seed(0)
    logits = torch.randn(vocab_size).mul(3).expand(BLOCK, -1).contiguous()
    uniforms = torch.linspace(0.0, 0.9999, BLOCK, dtype=torch.float64)
    configs = [SamplingConfig(**config)] * BLOCK
    found, expected = drawn_with_both(configs, logits, logits[0] * 0, uniforms)
    assert found.tolist() == expected.tolist()


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
    uniforms = torch.rand(BLOCK, dtype=torch.float64)
    found, expected = drawn_with_both(configs, logits, suppressed, uniforms)
    assert not suppressed[found].any()
    assert (found == expected).sum() >= BLOCK - 2  # rounding may decide between two tokens


@pytest.mark.parametrize("what", ["last", "tokens", "logprobs", "counts", "ring", "next"])
def test_a_kernel_that_draws_something_else_is_found(what):
    def wrong(logits, arguments):
        draw_with_torch(logits, arguments)
        if arguments.step == 1:
            values = arguments._asdict() | vars(arguments.window)
            values[what][..., :16] += 1

    assert draws_alike(draw_with_torch, 1.0, VOCAB, CPU)
    assert not draws_alike(wrong, 1.0, VOCAB, CPU)


def fails(name, *_):
    raise RuntimeError(f"{name.decode()} is too large\nfor this device")


def does_nothing(*_):
    pass


@needs_compiler
@pytest.mark.parametrize("name", [b"join", b"advance", b"draw"])
@pytest.mark.parametrize(
    ("launch", "reason"),
    [(fails, "is too large for this device"), (does_nothing, "their results differ from those of torch")],
)
def test_kernels_that_do_not_work_are_not_used(monkeypatch, capsys, name, launch, reason):
    right = kernels_on_cpu()._launch
    monkeypatch.setattr("lm.generation.gpu_batch._WARNING", threading.Lock())
    use_kernels(monkeypatch, lambda wanted, *rest: (launch if wanted == name else right)(wanted, *rest))
    schedulers = scheduler_of("lstm"), Scheduler(SamplingOnGPU(network_of("lstm")), VOCAB, (0,))
    expected, found = (generated(each, each.stream([1], SamplingConfig(), 3, 20)) for each in schedulers)
    assert found == expected
    error = capsys.readouterr().err
    assert error.startswith("warning: generation does not use its own GPU kernels and is therefore slower: ")
    assert error.endswith(f"{reason}\n") and error.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_gpu_runs_the_kernels(cell, precision, capsys):
    weights = GPUWeights(network_of(cell, layers=3, embedding_size=5).to("cuda"), precision)
    assert weights.kernels, capsys.readouterr().err
    check_steps(weights)
    for vocab_size in VOCAB_SIZES:
        assert draws_alike(weights.kernels.draw, 1.0, vocab_size, weights.device)
