"""The losses of tokens are those given everything before them, however the text is divided."""

import numpy as np
import pytest
import torch

from lm.config.schema import CELL_NAMES, ModelConfig
from lm.evaluation import token_losses as module
from lm.evaluation.scores import score_tokens
from lm.evaluation.token_losses import token_losses
from lm.model.device import Precision
from lm.model.network import RecurrentLM

VOCAB, START = 7, 1


def network_of(cell, memory, direction="forward"):
    """A network that forgets soon, or one whose state depends on the first token for ever."""
    torch.manual_seed(0)
    network = RecurrentLM(ModelConfig(cell=cell, hidden_size=12, layers=2, direction=direction), VOCAB).eval()
    with torch.no_grad():
        for name, weight in network.recurrent.named_parameters():
            if memory == "long" and "weight_hh" in name:
                weight.mul_(6)  # chaos: small differences grow
    return network


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 64)
    monkeypatch.setattr(module, "_SECTION", 16)
    monkeypatch.setattr(module, "WINDOW", 8)


def text_of(length):
    return np.random.default_rng(0).integers(0, VOCAB, length).astype(np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("memory", ["short", "long"])
@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("length", [1, 63, 64, 128, 500, 1000])
def test_losses_are_those_of_reading_token_by_token(small_parts, cell, memory, direction, length):
    network, tokens = network_of(cell, memory, direction), text_of(length)
    expected = [-logprob for logprob, *_ in score_tokens(network, tokens, START)]
    expected = network.direction.reorder(np.array(expected))
    seen = []
    found = token_losses(network, tokens, START, progress=seen.append)
    if memory == "short":
        assert found == pytest.approx(expected, abs=1e-4)
    else:  # chaos magnifies rounding, but a wrong state would make a greater difference
        found, expected = (network.direction.reorder(losses)[:90] for losses in (found, expected))
        assert found == pytest.approx(expected, abs=0.02)
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.fixture
def count_tokens(small_parts, monkeypatch):
    """A list of the numbers of tokens that are read together."""
    monkeypatch.setattr(module, "_LEAST", 256)
    compute, counts = module.block_losses, []

    def counted(decode, vocab_size, targets, scored):
        counts.append(targets.numel())
        return compute(decode, vocab_size, targets, scored)

    monkeypatch.setattr(module, "block_losses", counted)
    return counts


@pytest.mark.parametrize(("memory", "most"), [("short", 2.5), ("long", 5.0)])
def test_no_text_is_read_many_times(count_tokens, memory, most):
    network, tokens = network_of("lstm", memory), text_of(5000)
    token_losses(network, tokens, START)
    assert len(tokens) < sum(count_tokens) < most * len(tokens)


def test_rounding_is_no_reason_to_read_again(count_tokens):
    network, tokens = network_of("lstm", "short"), text_of(5000)
    exact = token_losses(network, tokens, START)
    count_tokens.clear()
    found = token_losses(network, tokens, START, precision=Precision.BF16)
    assert found == pytest.approx(exact, abs=0.1)
    assert sum(count_tokens) < 1.5 * len(tokens)
