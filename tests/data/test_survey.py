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
    return np.random.default_rng(seed).integers(0, 60, count).astype(np.uint16)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("long", [False, True])
def test_fraction_of_validation_text_copied_from_the_training_text(fraction, long, monkeypatch):
    if long:
        monkeypatch.setattr("lm.data.survey.LONG_TEXT", 1000)
    train, new = random_tokens(300_000), random_tokens(100_000, seed=1)
    size = int(len(new) * fraction)
    validation = np.concatenate([train[70_000 : 70_000 + size], new[size:]])
    assert repeated_fraction(train, validation) == pytest.approx(fraction, abs=0.08)
