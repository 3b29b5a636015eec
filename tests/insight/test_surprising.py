"""The most surprising places are the ones with the most bits, and stand where they are said to stand."""

import numpy as np
import pytest
from hypothesis import given, settings

from lm.errors import UserError
from lm.insight.surprisal import score_text
from lm.insight.surprising import most_surprising
from lm.tokenization.vocabulary import KINDS
from tests.insight.networks import make
from tests.tokenization.test_positions import DOCUMENTS, joined


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [False, True])
@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=30)
def test_the_most_surprising_places_have_the_most_bits(kind, words, documents):
    try:
        scored = score_text(make(kind), joined(documents))
    except UserError:  # a text of nothing but unknown characters
        return
    found = most_surprising(scored, 5, words=words)
    table = scored.per_word() if words else scored.per_token()
    assert [one.bits for one in found] == sorted(table["surprisal"], reverse=True)[:5]
    whole = scored.text.decode("utf-8", "replace")
    for one in found:
        assert one.bits == table["surprisal"][one.number]
        assert (one.line, one.column) == (table["line"][one.number], table["column"][one.number])
        place = one.place
        assert whole[place.start : place.end] == place.text
        assert whole[max(place.start - 30, 0) : place.end + 30] == place.before + place.text + place.after
        if words:
            assert place.text == scored.words.texts[one.number]


def test_of_equal_surprise_the_first_comes_first_and_a_short_text_has_fewer():
    scored = score_text(make("char"), "the sea")
    object.__setattr__(scored, "losses", np.ones(7))
    assert [one.number for one in most_surprising(scored)] == list(range(7))
