"""The learning rate spans the budget exactly."""

import pytest
import torch
from hypothesis import given, strategies as st

from lm.config.schema import ModelConfig, TrainingConfig
from lm.model.network import RecurrentLM
from lm.training.optimizer import learning_rate, make_optimizer


@given(done=st.floats(0, 1.2), schedule=st.sampled_from(["cosine", "linear", "constant"]))
def test_the_rate_stays_between_nothing_and_its_height(done, schedule):
    rate = learning_rate(done, TrainingConfig(lr=0.1, schedule=schedule, warmup=0.2))
    assert 0 < rate <= 0.1 + 1e-12


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.002), ("linear", 0.002), ("constant", 0.1)])
def test_it_rises_to_its_height_and_falls_to_the_end(schedule, end):
    config = TrainingConfig(lr=0.1, schedule=schedule, warmup=0.2)
    assert learning_rate(0.1, config) == pytest.approx(0.05)
    assert learning_rate(0.2, config) == pytest.approx(0.1)
    assert learning_rate(1.0, config) == pytest.approx(end)
    rates = [learning_rate(0.2 + i / 100, config) for i in range(80)]
    assert rates == sorted(rates, reverse=True)


def test_no_warmup():
    assert learning_rate(0.0, TrainingConfig(lr=0.1, warmup=0.0)) == 0.1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_weight_is_stepped_by_one_optimiser_and_only_matrices_decay(optimizer):
    network = RecurrentLM(ModelConfig(hidden_size=4), 5)
    groups = make_optimizer(
        network, TrainingConfig(lr=0.1, weight_decay=0.3, optimizer=optimizer)
    ).param_groups
    for group in groups:
        assert {p.dim() > 1 for p in group["params"]} == {group["weight_decay"] == 0.3}
    stepped = [id(p) for group in groups for p in group["params"]]
    assert sorted(stepped) == sorted(map(id, network.parameters()))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_in_float16_the_loss_is_scaled_and_a_step_that_overflows_is_left_out(optimizer):
    def learn(scaled, steps):
        torch.manual_seed(0)
        network = RecurrentLM(ModelConfig(hidden_size=4), 5)
        of = make_optimizer(network, TrainingConfig(lr=0.1, precision="fp32", optimizer=optimizer))
        of.scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        tokens = torch.tensor([[0, 1, 2]])
        for step in steps:
            of.zero_grad()
            of.scaler.scale(network.loss(tokens, tokens)[0]).backward()
            if step == "overflow":
                network.recurrent.weight_hh_l1.grad[0, 0] = network.decoder.bias.grad[0] = torch.inf
            of.unscale()
            of.step()
        return list(network.parameters()), of.scaler.get_scale()

    plain, _ = learn(False, ["good", "good"])
    scaled, scale = learn(True, ["good", "overflow", "good"])
    assert scale == 2**15
    # Muon skips the matrices' step where theirs overflowed, AdamW where the others' did.
    torch.testing.assert_close(scaled, plain)


def test_what_the_optimisers_remember_lies_in_one_place():
    network = RecurrentLM(ModelConfig(hidden_size=4), 5)
    optimizer = make_optimizer(network, TrainingConfig(lr=0.1, optimizer="muon"))
    tokens = torch.zeros(2, 3, dtype=torch.long)
    network.loss(tokens, tokens)[0].backward()
    optimizer.step()
    assert all(optimizer.state[weight] for weight in network.parameters())
    assert list(optimizer.state[network.recurrent.weight_hh_l0]) == ["momentum"]
