"""The training step: recorded as for a CUDA graph, it is the same step."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.config.schema import RunConfig
from lm.data.batches import Windows
from lm.data.corpus import open_corpus
from lm.model import cuda_graph
from lm.training.optimizer import LossScale, Optimizer
from lm.training.setup import build_learner
from lm.training.step import Step
from tests.model.recorded import record, train_as_on_a_gpu

SETTINGS = {
    "layers": 2, "hidden_size": 6, "embedding_size": 5, "batch_size": 5, "bptt": 4, "steps": 9, "lr": 0.01,
    "dropout": 0.2, "input_dropout": 0.1, "output_dropout": 0.3, "weight_dropout": 0.2, "precision": "fp32",
}  # fmt: skip
RATES = [0.01, 0.02, 0.005, 0.03, 0.01]


@pytest.fixture
def learner_of(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 9)

    train_as_on_a_gpu(monkeypatch.setattr)

    def build(on_device=True, **changes):
        """A learner whose text and optimizer are as on a GPU."""
        config = RunConfig.from_flat({**SETTINGS, "dataset": [str(text)], **changes})
        corpus = open_corpus(config.data)
        learner = build_learner(config, corpus)
        learner.network.train()
        if not on_device:
            size, bptt, eos = learner.windows.batch_size, learner.windows.bptt, corpus.tokenizer.eos
            learner.windows = Windows(corpus.train.tokens, size, bptt, eos, learner.device)
        return learner

    return build


def run(learner, step):
    """The losses of five steps, and everything that they have changed."""
    losses = [step(number, rate).item() for number, rate in enumerate(RATES)]
    return losses, {name: tensor.clone() for name, tensor in learner.tensors().items()}


def assert_equal(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert torch.equal(found[1][name], tensor), name


def unexpected(line):
    raise AssertionError(line)


@pytest.mark.slow
@given(
    cell=st.sampled_from(["rnn", "gru", "lstm"]),
    optimizer=st.sampled_from(["muon", "adamw"]),
    accumulate=st.sampled_from([1, 2]),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "embedding_dropout": st.just(0.3),
            "activation_reg": st.just(0.1),
            "temporal_activation_reg": st.just(0.2),
            "locked_dropout": st.just(False),
            "tie": st.just(True),
            "clip": st.just(0.0),
            "weight_dropout": st.just(0.0),
            "direction": st.just("backward"),
            "sampled_softmax": st.just(9),
        },
    ),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recorded_steps_are_the_steps_themselves(learner_of, cell, optimizer, accumulate, changes):
    results = []
    for as_graph in (False, True):
        learner = learner_of(cell=cell, optimizer=optimizer, accumulate=accumulate, **changes)
        torch.manual_seed(7)
        results.append(run(learner, Step(learner, unexpected, as_graph)))
    assert_equal(*results)


def test_a_text_on_the_host_can_be_read_by_a_recorded_step(learner_of):
    results = []
    for on_device in (False, True):
        learner = learner_of(on_device=on_device)
        torch.manual_seed(7)
        results.append(run(learner, Step(learner, unexpected, as_graph=True)))
    assert_equal(*results)


def test_readable_cells_are_not_recorded(learner_of):
    lines = []
    learner = learner_of(cell_implementation="reference")
    Step(learner, lines.append, as_graph=True)(0, 0.01)
    (line,) = lines
    assert line.endswith("the readable cells are computed step by step.")


def test_a_step_that_cannot_be_recorded_runs_as_it_is(learner_of, monkeypatch):
    def fail(compute):
        compute()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    expected = learner_of()
    torch.manual_seed(7)
    expected = run(expected, Step(expected, unexpected, as_graph=False))
    monkeypatch.setattr(cuda_graph, "capture", fail)
    learner, lines = learner_of(), []
    torch.manual_seed(7)
    assert_equal(run(learner, Step(learner, lines.append, as_graph=True)), expected)
    (line,) = lines
    assert "operation not permitted" in line and "\n" not in line


@pytest.mark.parametrize("frozen", ["rate", "dropout", "state"])
def test_a_recording_that_computes_something_else_is_not_used(learner_of, monkeypatch, frozen):
    learner, lines = learner_of(), []

    def wrong(compute):
        replay = record(compute)

        def run():
            if frozen == "rate":
                learner.optimizer.set_rate(0.01)
            elif frozen == "dropout":
                torch.manual_seed(3)
            loss = replay()
            if frozen == "state":
                for part in learner.state:
                    part.zero_()
            return loss

        return run

    expected = learner_of()
    torch.manual_seed(7)
    expected = run(expected, Step(expected, unexpected, as_graph=False))
    monkeypatch.setattr(cuda_graph, "capture", wrong)
    torch.manual_seed(7)
    assert_equal(run(learner, Step(learner, lines.append, as_graph=True)), expected)
    (line,) = lines
    assert "its results differ by" in line


@pytest.mark.parametrize("changes", [{}, {"cell": "gru", "accumulate": 2, "tie": True}], ids=str)
def test_no_part_of_an_autograd_graph_outlives_a_step(learner_of, changes):
    """The node that adds to a weight's gradient remembers the CUDA stream on which it was created. If one
    was left of a step before the capture, the capture would have to wait for that stream, and fail."""
    learner = learner_of(**changes)

    def node_of(weight):
        with torch.enable_grad():
            return weight.expand_as(weight).grad_fn.next_functions[0][0]

    weights = list(learner.network.parameters())
    for weight in weights:
        weight.register_hook(lambda _, weight=weight: node_of(weight).metadata.update(used=True))
    kept = []
    weights[0].register_hook(lambda _: kept.append(node_of(weights[0])))
    step = Step(learner, unexpected, as_graph=False)
    step(0, 0.01)
    assert "used" in kept[0].metadata
    kept.clear()
    assert not any("used" in node_of(weight).metadata for weight in weights)


def test_an_overflow_skips_the_step(learner_of):
    def first_step(scaled):
        learner = learner_of()
        if scaled:
            scale = LossScale(learner.device)
            learner.optimizer = Optimizer(*learner.optimizer.parts, scale=scale, capturable=True)
        step = Step(learner, unexpected, as_graph=True)
        torch.manual_seed(7)
        step(0, 0.01)
        return learner, step, {name: tensor.clone() for name, tensor in learner.tensors().items()}

    learner, step, before = first_step(scaled=True)
    # Scaling by a power of two changes nothing, except that small numbers keep their digits.
    for name, tensor in first_step(scaled=False)[2].items():
        torch.testing.assert_close(before[name], tensor, msg=name)
    learner.optimizer.scale.scale.fill_(torch.inf)
    step(1, 0.01)
    for name, tensor in learner.tensors().items():
        changes = name.startswith(("state.", "scale."))
        assert torch.equal(tensor, before[name]) != changes, name


CUDA = pytest.mark.gpu


@pytest.fixture
def gpu_learner_of(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 2000)

    def build(**changes):
        settings = {**SETTINGS, "hidden_size": 64, "batch_size": 16, "bptt": 32, "device": "cuda", **changes}
        config = RunConfig.from_flat({**settings, "dataset": [str(text)]})
        learner = build_learner(config, open_corpus(config.data))
        learner.network.train()
        return learner

    return build


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2}, {"optimizer": "adamw", "embedding_dropout": 0.2}], ids=str
)
class TestGPU:
    pytestmark = CUDA

    def test_graphs_compute_what_the_step_computes(self, gpu_learner_of, cell, precision, changes):
        results = []
        for as_graph in (False, True, True):
            learner = gpu_learner_of(cell=cell, precision=precision, **changes)
            torch.cuda.manual_seed(7)
            results.append(run(learner, Step(learner, unexpected, as_graph)))
        eager, graph, again = results
        assert graph[0] == pytest.approx(eager[0], rel=learner.precision.eps**0.5)
        assert_equal(again, graph)

    def test_a_graph_continues_from_restored_tensors(self, gpu_learner_of, cell, precision, changes):
        learner = gpu_learner_of(cell=cell, precision=precision, **changes)
        step = Step(learner, unexpected, as_graph=True)
        run(learner, step)
        before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
        random = torch.cuda.get_rng_state()
        expected = run(learner, step)
        other = gpu_learner_of(cell=cell, precision=precision, **changes)
        step = Step(other, unexpected, as_graph=True)
        run(other, step)
        for name, tensor in other.tensors().items():
            tensor.copy_(before[name])
        torch.cuda.set_rng_state(random)
        assert_equal(run(other, step), expected)
