"""Evaluation predicts every token exactly once and reports four units."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lm.config.schema import CacheConfig, ModelConfig
from lm.data.corpus import Counts
from lm.distributed import Ranks
from lm.evaluation import validation as module
from lm.evaluation.dynamic import dynamic_losses
from lm.evaluation.scores import score_tokens
from lm.evaluation.token_losses import token_losses
from lm.evaluation.validation import default_streams, validate, windows_of_losses
from lm.model.device import Precision
from lm.model.loss import BLOCK
from lm.model.network import RecurrentLM

EOS = 1


def make(cell="lstm", vocab=7, direction="forward"):
    torch.manual_seed(0)
    return RecurrentLM(ModelConfig(cell=cell, layers=1, hidden_size=12, direction=direction), vocab)


def text(size, vocab=7):
    return np.random.default_rng(0).integers(0, vocab, size).astype(np.uint16)


def reference_loss(network, tokens):
    """The mean loss of a single pass over all tokens."""
    ids = torch.from_numpy(np.concatenate([[EOS], tokens]).astype(np.int64))
    with torch.no_grad():
        logits, _ = network(ids[None, :-1])
    return F.cross_entropy(logits[0].double(), ids[1:]).item()


def counts(tokens, characters=None):
    return Counts(len(tokens), characters or len(tokens), 2 * len(tokens), 1, 0)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1500])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_one_stream_equals_a_single_pass(cell, size):
    network, tokens = make(cell), text(size)
    result = validate(network, tokens, counts(tokens), EOS, streams=1)
    assert result.loss == pytest.approx(reference_loss(network, tokens), abs=1e-5)
    assert result.tokens == size


@pytest.mark.parametrize(("size", "streams"), [(5000, 3), (4999, 15), (9000, 35)])
def test_several_streams_score_every_token_once_and_agree(size, streams):
    network, tokens = make(), text(size)
    result = validate(network, tokens, counts(tokens), EOS, streams=streams)
    assert result.tokens == size
    assert result.loss == pytest.approx(reference_loss(network, tokens), abs=1e-5)


def test_long_texts_are_read_in_several_streams_by_default():
    network, tokens = make(), text(60_000)
    result = validate(network, tokens, counts(tokens), EOS)
    assert result.tokens == 60_000
    assert result.loss == pytest.approx(reference_loss(network, tokens), abs=1e-5)


def test_streams_with_too_little_context_disagree(monkeypatch):
    """The context matters: the tests above can fail."""
    network, tokens = make(), text(1000)
    monkeypatch.setattr(module, "CONTEXT", 5)
    monkeypatch.setattr(module, "WINDOW", 5)
    result = validate(network, tokens, counts(tokens), EOS, streams=100)
    assert abs(result.loss - reference_loss(network, tokens)) > 1e-5


def test_a_limit_scores_about_that_many_tokens_from_all_over_the_text():
    network, tokens = make(), text(60_000)
    result = validate(network, tokens, counts(tokens), EOS, limit=7_000)
    assert 6_900 <= result.tokens <= 7_000
    assert result.loss == pytest.approx(reference_loss(network, tokens), abs=0.05)


@pytest.mark.parametrize(("size", "limit"), [(1, 0), (900, 0), (9000, 0), (60_000, 7000)])
def test_ranks_together_score_every_token_once(size, limit):
    """Even if there are fewer streams than ranks."""
    network, tokens = make(), text(size)
    alone = validate(network, tokens, counts(tokens), EOS, limit=limit)
    total, scored = 0.0, 0
    for rank in range(3):
        ranks = Ranks(rank, 3)
        for losses in windows_of_losses(network, tokens, EOS, None, limit, Precision.FP32, ranks):
            total += losses.sum().item()
            scored += len(losses)
    assert scored == alone.tokens
    assert total / scored == pytest.approx(alone.loss, rel=1e-6)


def test_units_are_consistent():
    network, tokens = make(), text(400)
    result = validate(network, tokens, counts(tokens, characters=200), EOS)
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    assert result.bits_per_character == pytest.approx(2 * result.loss / math.log(2))
    assert result.bits_per_byte == pytest.approx(0.5 * result.loss / math.log(2))


def test_training_mode_is_restored():
    network, tokens = make().train(), text(10)
    validate(network, tokens, counts(tokens), EOS)
    assert network.training


def test_scores_match_the_logits():
    network, tokens = make(), text(700)
    logits, _ = network(torch.from_numpy(np.concatenate([[EOS], tokens]).astype(np.int64))[None, :-1])
    logprobs = logits[0].log_softmax(-1).detach()
    for i, (logprob, rank, entropy, others) in enumerate(score_tokens(network, tokens, EOS, 3)):
        expected = logprobs[i, tokens[i]]
        assert logprob == pytest.approx(expected.item(), abs=1e-5)
        assert rank == 1 + (logprobs[i] > expected).sum()
        assert entropy == pytest.approx(
            torch.distributions.Categorical(logits=logits[0, i]).entropy().item(), abs=1e-4
        )
        best = logprobs[i].topk(3)
        assert [token for token, _ in others] == best.indices.tolist()
        assert [p for _, p in others] == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 700, 5000])
def test_losses_are_in_text_order_in_either_direction(size):
    forward, backward, tokens = make(), make(direction="backward"), text(size)
    mirrored = tokens[::-1].copy()
    for network, read, step in ((forward, tokens, 1), (backward, mirrored, -1)):
        expected = [-logprob for logprob, *_ in score_tokens(forward, read, EOS)]
        losses = token_losses(network, tokens, EOS)
        assert losses[::step] == pytest.approx(expected, abs=1e-4)
        result = validate(network, tokens, counts(tokens), EOS)
        assert result.loss == pytest.approx(np.mean(expected), abs=1e-5)
        assert [-logprob for logprob, *_ in score_tokens(network, tokens, EOS)] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("block", [1, 50, 5000])
def test_blocks_of_logits_change_rounding_only(direction, block, monkeypatch):
    network, tokens = make(direction=direction).eval(), text(1000)
    losses, scores = token_losses(network, tokens, EOS), list(score_tokens(network, tokens, EOS, 3))
    monkeypatch.setattr("lm.model.loss.BLOCK", block)
    assert token_losses(network, tokens, EOS) == pytest.approx(losses, abs=1e-5)
    for ours, whole in zip(score_tokens(network, tokens, EOS, 3), scores, strict=True):
        assert (ours[0], ours[2]) == pytest.approx((whole[0], whole[2]), abs=1e-5)
        assert ours[1] == whole[1] and [token for token, _ in ours[3]] == [token for token, _ in whole[3]]


def test_no_more_than_a_block_of_logits_is_computed_at_a_time(monkeypatch):
    network, tokens = make(vocab=3000), text(9000, vocab=3000)
    decode, sizes = network.decode, []

    def watched(hidden):
        sizes.append(len(hidden) * 3000)
        return decode(hidden)

    monkeypatch.setattr(network, "decode", watched)
    token_losses(network, tokens, EOS)
    list(score_tokens(network, tokens[:300], EOS))
    dynamic_losses(network, tokens[:300], EOS, cache=CacheConfig())
    assert max(sizes) <= BLOCK


@pytest.mark.parametrize(
    ("tokens", "limit", "streams"),
    [
        (1000, 0, 0),
        (10_240, 0, 10),
        (400_000, 0, 64),
        (819_200, 0, 100),
        (10**7, 0, 192),
        (10**7, 32_768, 64),
    ],
)
def test_longer_texts_are_read_in_more_streams(tokens, limit, streams):
    assert default_streams(tokens, limit) == streams
