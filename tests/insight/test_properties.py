"""Properties of texts where the right answer is known."""

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.errors import UserError
from lm.insight.properties import PROPERTIES, bracket_depth, comments, matching, quotes
from lm.tokenization.kinds import WHITESPACE

ANY = st.text("aA1é中 \t\n\"'()[]{}#/*“”‘’\\.-_<>!", max_size=60)
# Parts that keep their meaning in any order.
PARTS = {
    "quote": [
        '"a b(c"',
        "'it'",
        "'don't'",
        '"say \\" it"',
        "“said: 'no', and”",
        "f'x'",
        "rb'y'",
        '"""a "b"\nit\'s"""',
    ],
    "comment": ['# it\'s "a" (b)\n', "/* don't\n */", "// of C's\n", "<!-- a's -->", "#!/bin/sh\n"],
    "none": [
        "x = 1;\n",
        "don't ",
        '\\" ',
        "the users' ",
        "a // b\n",
        "http://a.b\n",
        "#include <x>\n",
        "(a) ",
    ],
}


def inside(function, text):
    return "".join(np.array(list(text))[function(text)])


@given(st.lists(st.sampled_from([(kind, part) for kind, parts in PARTS.items() for part in parts])))
@settings(deadline=None, max_examples=200)
def test_quotes_and_comments_are_recognized(parts):
    # Newlines between them: a comment needs one, and adjacent quotes would merge.
    text = "\n".join(part for _, part in parts)
    for kind, function in (("quote", quotes), ("comment", comments)):
        marked = [re.sub(r"^(f|rb)(?=')", "", part).rstrip("\n") for k, part in parts if k == kind]
        closed = [kind == "quote" or part.startswith(("/*", "<")) for part in marked]
        expected = [part[:-1] if has_end else part for part, has_end in zip(marked, closed, strict=True)]
        assert inside(function, text) == "".join(expected)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('he "never closed it\n\nand "then" did', '"then'),
        ("“one\n\n“two” three", "“one\n\n“two"),
        ("„so“ «hier» 「中」", "„so«hier「中"),
        ('"""open to the end', '"""open to the end'),
        ("a 'b", ""),
        ("x['a']['b']", "'a'b"),
    ],
)
def test_unbalanced_quotation_marks(text, part):
    assert inside(quotes, text) == part


BALANCED = st.recursive(
    st.sampled_from(["", "a", "\n"]),
    lambda text: (
        st.lists(text).map("".join)
        | st.tuples(text, st.sampled_from(["()", "[]", "{}"])).map(lambda t: t[1][0] + t[0] + t[1][1])
    ),
)


@given(BALANCED)
@settings(deadline=None)
def test_bracket_depth_is_the_nesting_depth(text):
    # Remove the innermost pairs until none are left.
    depth, left = np.zeros(len(text)), text
    while match := re.search(r"\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}", left):
        depth[match.start() : match.end() - 1] += 1
        left = left[: match.start()] + "a" * len(match[0]) + left[match.end() :]
    assert bracket_depth(text).tolist() == depth.tolist()


@given(st.text("a()[]{}", max_size=40))
@settings(deadline=None)
def test_depth_changes_only_at_matched_brackets(text):
    changes = np.diff(bracket_depth(text), prepend=0)
    assert changes.sum() == 0 and (np.cumsum(changes) >= 0).all()
    for opening, closing in ("()", "[]", "{}"):
        up = sum(change == 1 for c, change in zip(text, changes, strict=True) if c == opening)
        down = sum(change < 0 for c, change in zip(text, changes, strict=True) if c == closing)
        assert up == down and up <= min(text.count(opening), text.count(closing))
        # Adjacent brackets are always a pair.
        assert up >= text.count(opening + closing)


def test_unmatched_brackets_do_not_count():
    assert inside(PROPERTIES["brackets"], "f(a[1], {b}) ) ( x :) y (a[b) c] d") == "(a[1], {b}( x :(a[b"
    assert bracket_depth("a(b[c]d)e").tolist() == [0, 1, 1, 2, 2, 1, 1, 0, 0]


@given(ANY)
@settings(deadline=None)
def test_positions_in_lines_and_words_count_the_characters_read(text):
    found = {name: PROPERTIES[name](text) for name in ("line_position", "word_position", "indentation")}
    for index in range(len(text)):
        read = text[: index + 1]
        line = read.rsplit("\n")[-1]
        assert found["line_position"][index] == len(line)
        assert found["word_position"][index] == len(re.search(r"\w*\Z", read)[0])
        white = re.match(r"[ \t]*", line)[0]
        assert found["indentation"][index] == len(white.expandtabs(8))


def test_classes_of_characters():
    text = "Été 42, ÄÖÜ и Ыx_²\t中\n"
    assert inside(PROPERTIES["vowels"], text) == "ÉéÄÖÜиЫ"
    assert inside(PROPERTIES["digits"], text) == "42²"
    assert inside(PROPERTIES["upper_case"], text) == "ÉÄÖÜЫ"
    assert inside(PROPERTIES["white_space"], text) == "    \t\n"
    assert inside(PROPERTIES["punctuation"], text) == ",_"


@given(ANY)
@settings(deadline=None)
def test_every_property_has_a_value_for_each_character(text):
    for name, function in PROPERTIES.items():
        values = function(text)
        assert values.shape == (len(text),), name
        quantity = name in ("line_position", "word_position", "indentation", "bracket_depth")
        assert values.dtype == (np.float64 if quantity else bool), name


def test_time_is_linear_in_the_length_of_any_text():
    begun = time.monotonic()
    for odd in ('"""\\"', '"\\', "“", "/*", "<!-", "''", "'a'a", "(", "(]", '"\n', " #", "\\", "; ", "\n \n"):
        for function in PROPERTIES.values():
            function(odd * (60_000 // len(odd)))
    assert time.monotonic() - begun < 20  # 3 s on an idle machine; minutes if quadratic


@given(ANY, st.sampled_from(["a+", "^.", "[^a]$", "a*", WHITESPACE, r"(?i)a(?=1)", "é|中"]))
@settings(deadline=None, max_examples=15)
def test_a_pattern_marks_its_matches(text, pattern):
    expected = np.zeros(len(text), bool)
    for match in re.finditer(pattern, text, re.MULTILINE):
        expected[match.start() : match.end()] = True
    assert np.array_equal(matching(text, pattern), expected)


def test_invalid_patterns_raise_a_user_error(monkeypatch):
    for pattern, message in (
        ("(", r"the pattern '\(' is invalid: missing \)"),
        ("a{99999999999}", "is invalid: the repetition number is too large"),
        ("", "the pattern is empty"),
        ("a" * 1001, "more than 1000 characters"),
    ):
        with pytest.raises(UserError, match=message):
            matching("a text", pattern)
    monkeypatch.setattr("lm.insight.properties._TIME_LIMIT", 0.5)
    begun = time.monotonic()
    with pytest.raises(UserError, match="takes too long on this text"):
        matching("a" * 40 + "!", "(a+)+$")
    assert time.monotonic() - begun < 5
