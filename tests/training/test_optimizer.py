"""The learning rate spans the budget exactly."""

import pytest
import torch
from hypothesis import given, strategies as st

from lm.config.resolved import RecipeConfig
from lm.config.schema import ModelConfig
from lm.model.device import Precision
from lm.model.network import RecurrentLM
from lm.training.optimizer import LossScale, Optimizer, learning_rate, make_optimizer


@given(done=st.floats(0, 1.2), schedule=st.sampled_from(["cosine", "linear", "constant"]))
def test_the_rate_stays_between_zero_and_its_peak(done, schedule):
    rate = learning_rate(done, RecipeConfig(lr=0.1, schedule=schedule, warmup=0.2))
    assert 0 < rate <= 0.1 + 1e-12


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.002), ("linear", 0.002), ("constant", 0.1)])
def test_the_rate_rises_to_its_peak_and_falls_to_the_end(schedule, end):
    config = RecipeConfig(lr=0.1, schedule=schedule, warmup=0.2)
    assert learning_rate(0.1, config) == pytest.approx(0.05)
    assert learning_rate(0.2, config) == pytest.approx(0.1)
    assert learning_rate(1.0, config) == pytest.approx(end)
    rates = [learning_rate(0.2 + i / 100, config) for i in range(80)]
    assert rates == sorted(rates, reverse=True)


def test_no_warmup():
    assert learning_rate(0.0, RecipeConfig(lr=0.1, warmup=0.0)) == 0.1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_one_optimizer_updates_each_weight_and_only_matrices_decay(optimizer):
    network = RecurrentLM(ModelConfig(hidden_size=4), 5)
    config = RecipeConfig(lr=0.1, weight_decay=0.3, optimizer=optimizer)
    groups = make_optimizer(network, config, Precision.FP32).param_groups
    for group in groups:
        assert {p.dim() > 1 for p in group["params"]} == {group["weight_decay"] == 0.3}
    stepped = [id(p) for group in groups for p in group["params"]]
    assert sorted(stepped) == sorted(map(id, network.parameters()))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_float16_scales_the_loss_and_skips_steps_that_overflow(optimizer):
    def learn(scaled, steps):
        torch.manual_seed(0)
        network = RecurrentLM(ModelConfig(hidden_size=4), 5)
        config = RecipeConfig(lr=0.1, optimizer=optimizer)
        of = make_optimizer(network, config, Precision.FP32, capturable=True)
        if scaled:
            of = Optimizer(*of.parts, scale=LossScale(torch.device("cpu")), capturable=True)
        tokens = torch.tensor([[0, 1, 2]])
        for step in steps:
            of.zero_grad()
            of.scaled(network.loss(tokens, tokens)[0]).backward()
            if step == "overflow":
                network.recurrent.weight_hh_l1.grad[0, 0] = torch.inf
            of.unscale()
            of.step()
        return list(network.parameters()), of.scale

    plain, _ = learn(False, ["good", "good"])
    scaled, scale = learn(True, ["good", "overflow", "good"])
    assert scale.scale == 2**15
    torch.testing.assert_close(scaled, plain)


def test_the_scale_grows_after_many_steps_without_overflow():
    scale = LossScale(torch.device("cpu"))
    for _ in range(2000):
        scale.unscale([torch.ones(2)])
        scale.update()
    assert scale.scale == 2**17


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_recordable_step_equals_the_one_for_cpus(optimizer):
    def learn(capturable):
        torch.manual_seed(0)
        network = RecurrentLM(ModelConfig(hidden_size=6), 5)
        of = make_optimizer(
            network, RecipeConfig(lr=0.1, optimizer=optimizer), Precision.FP32, capturable=capturable
        )
        tokens = torch.tensor([[0, 1, 2]])
        for rate in (0.1, 0.03, 0.07):
            of.set_rate(rate)
            of.zero_grad()
            network.loss(tokens, tokens)[0].backward()
            of.step()
            assert of.rate == rate
        return list(network.parameters())

    torch.testing.assert_close(learn(True), learn(False))


def test_all_optimizers_share_one_state():
    network = RecurrentLM(ModelConfig(hidden_size=4), 5)
    optimizer = make_optimizer(network, RecipeConfig(lr=0.1, optimizer="muon"), Precision.FP32)
    tokens = torch.zeros(2, 3, dtype=torch.long)
    network.loss(tokens, tokens)[0].backward()
    optimizer.step()
    assert all(optimizer.state[weight] for weight in network.parameters())
    assert list(optimizer.state[network.recurrent.weight_hh_l0]) == ["momentum"]
