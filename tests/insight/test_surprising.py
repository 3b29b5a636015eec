"""The most surprising spans have the most bits, and their positions are correct."""

import numpy as np
import pytest
from hypothesis import given, settings

from lm.errors import UserError
from lm.insight.surprisal import score_text
from lm.insight.surprising import most_surprising
from lm.tokenization.vocabulary import KINDS
from tests.insight.networks import make
from tests.tokenization.test_positions import DOCUMENTS, joined


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [False, True])
@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=30)
def test_the_most_surprising_spans_have_the_most_bits(kind, words, documents):
    try:
        scored = score_text(make(kind), joined(documents))
    except UserError:  # all characters are unknown
        return
    found = most_surprising(scored, 5, words=words)
    table = scored.per_word() if words else scored.per_token()
    assert [one.bits for one in found] == sorted(table["surprisal"], reverse=True)[:5]
    whole = scored.text.decode("utf-8", "replace")
    for one in found:
        assert one.bits == table["surprisal"][one.index]
        assert (one.line, one.column) == (table["line"][one.index], table["column"][one.index])
        found_in = one.snippet
        assert whole[found_in.start : found_in.end] == found_in.text
        in_context = found_in.before + found_in.text + found_in.after
        assert whole[max(found_in.start - 30, 0) : found_in.end + 30] == in_context
        if words:
            assert found_in.text == scored.words.texts[one.index]


def test_ties_are_in_text_order_and_short_texts_have_fewer():
    scored = score_text(make("char"), "the sea")
    object.__setattr__(scored, "losses", np.ones(7))
    assert [one.index for one in most_surprising(scored)] == list(range(7))
