"""Sentences are split into regions by a mark in the text, or by a list of their parts."""

import pytest

from lm.insight.regions import locate, split_marked


@pytest.mark.parametrize(
    ("marked", "sentence", "regions"),
    [
        ("The horse|raced past|fell.", "The horse raced past fell.", ["The horse", "raced past", "fell."]),
        ("The horse | raced |fell.", "The horse raced fell.", ["The horse", "raced", "fell."]),
        ("The un|happy |man", "The unhappy man", ["The un", "happy", "man"]),
        ("The| horse| fell", "The horse fell", ["The", "horse", "fell"]),
        ("马|跑过|谷仓", "马跑过谷仓", ["马", "跑过", "谷仓"]),
        ("|The||horse|", "The horse", ["The", "horse"]),
        ("The horse", "The horse", ["The horse"]),
    ],
)
def test_separators_become_at_most_one_space(marked, sentence, regions):
    found, starts = split_marked(marked, "|")
    assert found == sentence
    assert [found[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] == regions


def test_parts_are_found_whatever_the_whitespace():
    assert locate("The  horse\nfell.", "The horse|fell|.", "|") == [0, 11, 15]
    assert locate("The horse fell.", ["The", " horse fell."], "|") == [0, 4]
    for wrong in (["The", "fell."], "The horse", None, [1], "The horse fell. now", [], ""):
        assert locate("The horse fell.", wrong, "|") is None
