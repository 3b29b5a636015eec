"""Two models are compared as a plain computation of the differences of their bits would."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.errors import UserError
from lm.evaluation import resampling
from lm.evaluation.comparison import compare_losses
from lm.evaluation.resampling import parts_of
from lm.insight.scored_text import compare
from lm.insight.surprisal import score_text
from lm.tokenization.vocabulary import KINDS
from tests.insight.networks import make
from tests.tokenization.test_positions import DOCUMENTS, joined

MODELS = {(kind, seed): make(kind, seed=seed) for kind in KINDS for seed in (1, 2)}


@pytest.mark.slow
@given(DOCUMENTS, st.booleans(), *[st.sampled_from(sorted(MODELS))] * 2)
@settings(deadline=None, max_examples=60)
def test_the_difference_is_that_of_the_bits_per_character(documents, reset, first, second):
    documents = ["the " + document for document in documents]  # which all tokenizers know
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_MIN_BLOCK_SIZE", 1)
        patch.setattr(resampling, "_MIN_PARTS", 2)
        a, b = (score_text(MODELS[name], joined(documents), reset=reset) for name in (first, second))
        found, opposite = compare(a, b), compare(b, a)
    bits = (a.losses.sum() - b.losses.sum()) / math.log(2)
    assert found.bits_per_character.value == pytest.approx(bits / sum(map(len, documents)))
    assert found.bits_per_byte.value == pytest.approx(bits / len("".join(documents).encode()))
    assert opposite.bits_per_character.value == pytest.approx(-found.bits_per_character.value)
    if found.p is not None:
        low, high = found.bits_per_character.interval
        assert opposite.bits_per_character.interval == pytest.approx((-high, -low), abs=1e-9)
        assert opposite.p == found.p
        assert low - 1e-9 <= high and 0 < found.p <= 1
        if first == second:
            assert (low, high, found.p) == (0, 0, 1)


@pytest.mark.parametrize("reset", [False, True])
def test_documents_are_compared_with_documents(reset):
    documents = [f"the sea was {'calm ' * (n % 3)}\n" for n in range(25)]
    a, b = (score_text(make(kind), joined(documents), reset=reset) for kind in ("word", "bpe"))
    found = compare(a, b)
    assert str(found.parts) == "25 documents"
    if reset:
        differences = [
            score_text(make("word"), d, reset=True).bits.sum()
            - score_text(make("bpe"), d, reset=True).bits.sum()
            for d in documents
        ]
        sums = found.parts.sums(a.starts, a.bits) - found.parts.sums(b.starts, b.bits)
        assert sums == pytest.approx(differences)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_p_is_that_of_all_sign_flips(shift):
    parts = parts_of(b"x" * 1_200, np.arange(1_200))
    assert len(parts) == 12
    differences = np.random.default_rng(3).normal(shift, 1, 12)
    flips = np.array(list(itertools.product((-1, 1), repeat=12)))
    exact = np.mean(np.abs(flips @ differences) >= abs(differences.sum()) - 1e-9)
    found = compare_losses(parts, 5 + differences, np.full(12, 5.0))
    assert found.p == pytest.approx(exact, abs=0.02)
    assert found.bits_per_character.value == pytest.approx(differences.sum() / 1_200 / math.log(2))
    assert compare_losses(parts, np.full(12, 5.0), 5 + differences).p == found.p


@pytest.mark.slow
def test_p_is_below_5_percent_as_often_for_models_that_do_not_differ():
    """And intervals contain no difference as often, for losses that are correlated."""
    generator, trials, size = np.random.default_rng(0), 150, 6_000
    starts, noise = np.arange(size), np.zeros((size, trials))
    for i in range(1, size):
        noise[i] = 0.9 * noise[i - 1] + generator.normal(size=trials)
    parts = parts_of(b"x" * size, starts)
    rejected = outside = 0
    for differences in noise.T:
        found = compare_losses(
            parts, parts.sums(starts, 2 + differences), parts.sums(starts, np.full(size, 2.0))
        )
        low, high = found.bits_per_character.interval
        rejected += found.p < 0.05
        outside += not low <= 0 <= high
    assert 1 <= rejected <= 0.12 * trials
    assert 1 <= outside <= 0.12 * trials


def test_short_texts_have_no_interval_and_no_p():
    a, b = (score_text(make(seed=seed), "the sea") for seed in (1, 2))
    found = compare(a, b)
    assert found.p is None and found.bits_per_character.interval is None
    with pytest.raises(UserError, match="same text"):
        compare(a, score_text(make(), "the boat"))
