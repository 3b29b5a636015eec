"""Dynamic evaluation and the continuous cache agree with their equations, computed token by token."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lm.config.schema import CacheConfig, DynamicConfig, ModelConfig
from lm.evaluation.dynamic import dynamic_losses
from lm.evaluation.token_losses import token_losses
from lm.model.device import choose_precision
from lm.model.network import RecurrentLM

START = 1


def make(cell="lstm", vocab=7, **config):
    torch.manual_seed(0)
    return RecurrentLM(ModelConfig(cell=cell, layers=2, hidden_size=12, **config), vocab)


def text(size, vocab=7):
    return np.random.default_rng(0).integers(0, vocab, size).astype(np.uint16)


def reference_cache_losses(network, tokens, window, theta, share):
    """p = (1 - λ) · p_network + λ · p_cache, one token at a time."""
    ids = torch.from_numpy(np.concatenate([[START], tokens]).astype(np.int64))
    with torch.no_grad():
        hidden, _ = network.eval().hidden_states(ids[None, :-1])
        probabilities = network.decode(hidden[:, 0]).softmax(-1)
    hidden, losses = hidden[:, 0], []
    for t, token in enumerate(tokens.tolist()):
        p = probabilities[t, token].item()
        entries = range(max(0, t - window), t)
        if entries:
            weights = {i: math.exp(theta * float(hidden[t] @ hidden[i])) for i in entries}
            same = sum(weight for i, weight in weights.items() if tokens[i] == token)
            p = (1 - share) * p + share * same / sum(weights.values())
        losses.append(-math.log(p))
    return np.array(losses)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 10, 2000])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_cache_matches_its_equation(cell, window):
    network, tokens = make(cell), text(300)
    config = CacheConfig(cache_window=window, cache_theta=1.3, cache_lambda=0.3)
    expected = reference_cache_losses(network, tokens, window, 1.3, 0.3)
    assert dynamic_losses(network, tokens, START, cache=config) == pytest.approx(expected, abs=1e-4)


def reference_dynamic_losses(network, tokens, rate, decay, segment):
    """The update of all weights as one flat vector."""
    network, state, squares, losses = copy.deepcopy(network).eval(), None, [], []
    weights = list(network.parameters())
    flat = torch.nn.utils.parameters_to_vector
    trained = flat(weights).detach()
    ids = torch.from_numpy(np.concatenate([[START], tokens]).astype(np.int64))
    for begin in range(0, len(tokens), segment):
        part = ids[begin : begin + segment + 1]
        logits, state = network(part[None, :-1], state)
        state = tuple(s.detach() for s in state)
        each = F.cross_entropy(logits[0], part[1:], reduction="none")
        losses += each.tolist()
        network.zero_grad()
        each.mean().backward()
        gradient = flat([w.grad for w in weights])
        squares.append(gradient**2)
        size = torch.stack(squares).mean(0).sqrt()
        now = flat(weights).detach()
        pull = (decay * size / size.mean()).clamp(max=1)
        now = now + pull * (trained - now) - rate * gradient / (size + size.mean())
        torch.nn.utils.vector_to_parameters(now, weights)
    return np.array(losses)


@pytest.mark.parametrize(("cell", "tie"), [("rnn", False), ("gru", False), ("lstm", True)])
def test_dynamic_evaluation_matches_its_equation(cell, tie):
    network, tokens = make(cell, tie=tie, embedding_size=8), text(130)
    config = DynamicConfig(dynamic_rate=0.01, dynamic_decay=0.1, dynamic_segment=20)
    expected = reference_dynamic_losses(network, tokens, 0.01, 0.1, 20)
    assert dynamic_losses(network, tokens, START, dynamic=config) == pytest.approx(expected, abs=1e-4)


def test_repetitions_are_learned_and_the_network_does_not_change():
    network, tokens = make(), np.tile(text(40), 30)
    before = copy.deepcopy(network.state_dict())
    plain = token_losses(network, tokens, START)
    rate = DynamicConfig(dynamic_rate=0.003)
    learned = dynamic_losses(network, tokens, START, dynamic=rate)
    both = dynamic_losses(network, tokens, START, dynamic=rate, cache=CacheConfig())
    assert learned[-400:].mean() < plain[-400:].mean() - 0.2
    assert both[-400:].mean() < plain[-400:].mean() - 0.2
    assert not np.array_equal(both, learned)
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert token_losses(network, tokens, START) == pytest.approx(plain)


def test_dropout_is_off_even_if_the_network_is_in_training_mode():
    network = make(dropout=0.5, output_dropout=0.5, weight_dropout=0.5).train()
    config, tokens = DynamicConfig(dynamic_rate=0.01), text(100)
    assert (
        dynamic_losses(network, tokens, START, dynamic=config)
        == dynamic_losses(network, tokens, START, dynamic=config)
    ).all()
    assert network.training


def test_a_backward_model_adapts_from_right_to_left():
    forward, tokens = make(), text(90)
    backward = make(direction="backward")
    config = {"dynamic": DynamicConfig(dynamic_rate=0.01), "cache": CacheConfig(cache_window=30)}
    mirrored = dynamic_losses(forward, tokens[::-1].copy(), START, **config)
    assert dynamic_losses(backward, tokens, START, **config) == pytest.approx(mirrored[::-1])


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_gpu_gives_the_same_losses(cell):
    choose_precision("fp32", torch.device("cuda"))  # instead of torch's default, TF32
    network, tokens = make(cell), text(200)
    config = {"dynamic": DynamicConfig(dynamic_rate=0.003), "cache": CacheConfig()}
    expected = dynamic_losses(network, tokens, START, **config)
    found = dynamic_losses(network.cuda(), tokens, START, **config)
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("tie", [False, True])
def test_blocks_of_logits_and_groups_of_weights_change_rounding_only(tie, monkeypatch):
    network, tokens = make(tie=tie), text(200)
    settings = {"dynamic": DynamicConfig(dynamic_rate=0.01), "cache": CacheConfig()}
    whole = dynamic_losses(network, tokens, START, **settings)
    monkeypatch.setattr("lm.model.loss.BLOCK", 30)
    monkeypatch.setattr("lm.evaluation.dynamic._GROUP", 50)
    assert dynamic_losses(network, tokens, START, **settings) == pytest.approx(whole, abs=1e-5)
