"""Beam search against exhaustive search."""

import itertools
import math

import pytest
import torch

from lm.errors import UserError
from lm.generation.beam import beam_search
from lm.generation.constraints import Banned, NoRepeat, OneOf, Vocabulary
from lm.generation.decoder import NetworkDecoder
from tests.generation.test_decoder import make


def all_texts(network, prompt, length, end, suppressed, penalty):
    """Every text of up to `length` tokens with its score."""
    texts = {}
    tokens = [t for t in range(13) if t not in suppressed]
    for size in range(1, length + 1):
        for text in itertools.product(tokens, repeat=size):
            if end in text[:-1] or (size < length and text[-1] != end):
                continue
            with torch.no_grad():
                logprobs = network(torch.tensor([[*prompt, *text]]))[0][0].log_softmax(-1)
            positions = range(len(prompt) - 1, len(prompt) - 1 + size)
            total = sum(logprobs[i, token].item() for i, token in zip(positions, text, strict=True))
            texts[text] = total / size**penalty
    return texts


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_wide_search_finds_the_best_of_all_texts(cell, penalty):
    network, prompt, end, suppressed = make(cell), [1, 2], 3, [0, *range(6, 13)]
    texts = all_texts(network, prompt, 3, end, suppressed, penalty)
    best = sorted(texts, key=lambda text: -texts[text])[:4]
    found = beam_search(
        NetworkDecoder(network), prompt, 40, 3, length_penalty=penalty, end=end, suppressed=suppressed
    )  # as many beams as partial texts
    assert [tuple(one.tokens) for one in found[:4]] == best
    for one in found:
        assert one.score == pytest.approx(texts[tuple(one.tokens)], abs=1e-4)
        assert sum(one.logprobs) / len(one.tokens) ** penalty == pytest.approx(one.score, abs=1e-4)


def plain_search(network, prompt, beams, limit, end, penalty):
    """Beam search without a batch, a bound or early stopping."""
    alive, finished = [([], 0.0)], []
    for size in range(1, limit + 1):
        longer = []
        for text, total in alive:
            with torch.no_grad():
                logprobs = network(torch.tensor([[*prompt, *text]]))[0][0, -1].log_softmax(-1).tolist()
            longer += [([*text, token], total + logprob) for token, logprob in enumerate(logprobs)]
        longer.sort(key=lambda one: -one[1])
        alive = []
        for text, total in longer[: 2 * beams]:
            if len(alive) == beams:
                break
            if text[-1] == end or size == limit:
                finished.append((total / size**penalty, text))
            else:
                alive.append((text, total))
    return [text for _, text in sorted(finished, key=lambda one: -one[0])[:beams]]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_a_narrow_search_keeps_as_many_partial_texts_as_it_has_beams(beams, penalty):
    for seed in range(4):
        network = make("gru", seed=seed)
        network.decoder.bias.data[3] += 1.5  # so that texts often end early
        found = beam_search(NetworkDecoder(network), [1], beams, 6, length_penalty=penalty, end=3)
        assert [one.tokens for one in found] == plain_search(network, [1], beams, 6, 3, penalty)


def allowed_texts(network, prompt, allowed, complete, limit):
    """Every allowed text with its score; a `complete` text can also end early."""
    texts = {}

    def extend(text, total):
        with torch.no_grad():
            logprobs = network(torch.tensor([[*prompt, *text]]))[0][0, -1].log_softmax(-1).tolist()
        possible = [token for token in range(13) if allowed((*text, token))]
        if complete(text):
            others = sum(math.exp(logprobs[token]) for token in range(13) if token not in possible)
            texts[text] = (total + math.log(others)) / max(len(text), 1)
        for token in possible:
            longer = (*text, token)
            if len(longer) == limit:
                texts[longer] = (total + logprobs[token]) / limit
            else:
                extend(longer, total + logprobs[token])

    extend((), 0.0)
    return texts


LETTERS = Vocabulary([bytes([97 + token]) for token in range(13)])  # a to m


def test_a_search_finds_the_best_of_the_choices():
    network = make("gru")
    choices = [b"abc", b"ab", b"kk", b"", b"cdefg"]
    texts = allowed_texts(
        network,
        [1, 2],
        allowed=lambda text: any(choice.startswith(bytes(97 + t for t in text)) for choice in choices),
        complete=lambda text: bytes(97 + t for t in text) in choices,
        limit=4,
    )
    found = beam_search(NetworkDecoder(network), [1, 2], 40, 4, constraints=[OneOf(LETTERS, choices)])
    assert [tuple(one.tokens) for one in found] == sorted(texts, key=lambda text: -texts[text])
    assert [one.score for one in found] == pytest.approx(sorted(texts.values(), reverse=True), abs=1e-4)


def test_each_text_of_a_search_has_its_own_constraints():
    network, banned, no_repeat = make("lstm"), Banned(LETTERS, [b"ca", b"k"]), NoRepeat(13, 2, [1, 2])

    def allowed(text):
        letters, bigrams = bytes(97 + t for t in text), list(itertools.pairwise([1, 2, *text]))
        return b"ca" not in letters and b"k" not in letters and len(set(bigrams)) == len(bigrams)

    texts = allowed_texts(network, [1, 2], allowed, lambda text: False, 3)
    found = beam_search(NetworkDecoder(network), [1, 2], 150, 3, constraints=[banned, no_repeat])
    best = sorted(texts, key=lambda text: -texts[text])[:20]
    assert [tuple(one.tokens) for one in found[:20]] == best


def test_a_search_applies_the_logit_bias():
    decoder = NetworkDecoder(make("gru"))
    (always,) = beam_search(decoder, [4], 1, 5, bias={7: 100.0})
    assert always.tokens == [7] * 5 and always.score == pytest.approx(0.0)
    assert sum(always.logprobs) < -1.0  # the model itself finds it less likely
    with pytest.raises(UserError, match="logit bias"):
        beam_search(decoder, [4], 1, 5, bias={13: 1.0})


def test_a_search_without_any_allowed_text_is_an_error():
    with pytest.raises(UserError, match="no token is allowed after the first 0"):
        beam_search(NetworkDecoder(make("gru")), [4], 3, 5, constraints=[OneOf(LETTERS, [b"xyz"])])


def test_one_beam_is_greedy_and_more_are_no_worse():
    network = make("gru")
    tokens = [4]
    for _ in range(12):
        tokens.append(int(network(torch.tensor([tokens]))[0][0, -1].argmax()))
    (greedy,) = beam_search(NetworkDecoder(network), [4], 1, 12)
    assert greedy.tokens == tokens[1:]
    assert beam_search(NetworkDecoder(network), [4], 6, 12)[0].score >= greedy.score
