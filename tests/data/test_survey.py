"""The survey: characters, documents and repetitions are counted correctly."""

import numpy as np
import pytest

from lm.data.survey import repeated_fraction, survey
from lm.tokenization.documents import SEPARATOR


def test_characters_and_documents_are_counted_across_blocks():
    blocks = [b"aab" + SEPARATOR + b"aaa", "ééb".encode(), b"b" + SEPARATOR + b"a"]
    found = survey(blocks)
    assert found.characters == {"a": 6, "b": 3, "é": 2}
    assert found.longest_document == 7


def random_tokens(count, seed=0):
    """Tokens from 1 on: 0 is <eos>."""
    return np.random.default_rng(seed).integers(1, 60, count).astype(np.uint16)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("long", [False, True])
def test_fraction_of_validation_text_copied_from_the_training_text(fraction, long, monkeypatch):
    if long:
        monkeypatch.setattr("lm.data.survey.LONG_TEXT", 1000)
    train, new = random_tokens(300_000), random_tokens(100_000, seed=1)
    size = int(len(new) * fraction)
    validation = np.concatenate([train[70_000 : 70_000 + size], new[size:]])
    found = repeated_fraction(train, validation, eos=0, kind="char")
    assert found == pytest.approx(fraction, abs=0.08)


def as_text(documents):
    """The tokens of documents with <eos> between them."""
    return np.concatenate([np.append(document, np.uint16(0)) for document in documents])[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("length", [1, 5, 63, 200, 256])
@pytest.mark.parametrize("chunk", [3000, 1 << 20])
def test_fraction_of_short_documents_copied_in_another_order(fraction, length, chunk, monkeypatch):
    monkeypatch.setattr("lm.data.survey._CHUNK", chunk)
    known, new = (
        np.random.default_rng(0).permutation(60_000).astype(np.uint16)[part].reshape(-1, length) + 1
        for part in (slice(100 * length), slice(100 * length, 200 * length))
    )
    copied = known[::-1][: int(100 * fraction)]
    validation = as_text([*copied, *new[: 100 - len(copied)]])
    for kind in ("char", "word"):
        found = repeated_fraction(as_text(known), validation, eos=0, kind=kind)
        assert found == pytest.approx(fraction, abs=0.08 if length > 16 else 0.01 + 1 / (length + 1))


def test_sentences_of_words_copied_in_another_order():
    known = [random_tokens(30, seed=seed) for seed in range(300)]
    train, validation = np.concatenate(known), np.concatenate(known[::-1])
    assert repeated_fraction(train, validation, eos=0, kind="word") > 0.4
