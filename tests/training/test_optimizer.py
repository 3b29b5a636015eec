"""The learning rate spans the budget exactly."""

import pytest
import torch
from hypothesis import given, strategies as st

from lm.config import ModelConfig, TrainingConfig
from lm.network import RecurrentLM
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


def test_only_matrices_decay():
    network = RecurrentLM(ModelConfig(hidden_size=4), 5)
    decayed, spared = make_optimizer(network, TrainingConfig(weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3
    assert spared["weight_decay"] == 0
    assert all(p.dim() > 1 for p in decayed["params"])
    assert all(p.dim() == 1 for p in spared["params"])
    assert sum(p.numel() for g in (decayed, spared) for p in g["params"]) == network.parameter_count()
    assert torch.is_tensor(decayed["params"][0])
