"""Overlaps of the end of a text with the beginnings of strings."""

import time

from hypothesis import given, strategies as st

from lm.generation.overlaps import Search, overlaps

STRINGS = st.text("ab", min_size=1, max_size=7)


def lengths(text, string):
    """Of all overlaps, the longest first."""
    return [size for size in reversed(range(1, len(string))) if text.endswith(string[:size])]


@given(text=st.text("ab", max_size=9), strings=st.lists(STRINGS, max_size=4), missing=st.integers(0, 8))
def test_overlaps_are_the_beginnings_of_strings_that_lack_few_characters(text, strings, missing):
    every = [(s.encode(), size) for s in strings for size in lengths(text, s) if len(s) - size <= missing]
    assert list(overlaps(text.encode(), [s.encode() for s in strings], missing)) == every


@given(string=STRINGS, parts=st.lists(st.text("ab", max_size=5), max_size=9))
def test_a_search_knows_the_longest_overlap_and_where_the_string_first_ends(string, parts):
    search, text = Search(string), ""
    for part in parts:
        found = search.find(part)
        at = (text + part).find(string)
        assert found == (at + len(string) - len(text) if at >= 0 else -1)
        if at >= 0:
            break
        text += part
        assert search.overlap == max(lengths(text, string), default=0)


def test_a_search_takes_no_longer_because_the_string_overlaps_everywhere():
    searches = [Search("a" * (400 + i) + "b" * 600) for i in range(16)]
    begin = time.thread_time()
    for _ in range(3000):
        assert {search.find("a") for search in searches} == {-1}
    assert time.thread_time() - begin < 1.0
