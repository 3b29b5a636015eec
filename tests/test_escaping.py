"""What could steer a terminal or break a table can be seen, and taken back."""

from hypothesis import given, settings, strategies as st

from lm.escaping import escaped, unescaped


@given(st.binary())
@settings(deadline=None)
def test_what_was_escaped_is_one_visible_word_and_can_be_taken_back(part):
    text = escaped(part)
    assert unescaped(text) == part
    assert len(text.split()) == bool(text) and text == text.strip()
    assert "\x1b" not in text


@given(st.text())
@settings(deadline=None)
def test_so_are_characters(text):
    assert unescaped(escaped(text.encode())) == text.encode()


def test_examples():
    assert escaped(b" a\n") == r"\sa\n"
    assert escaped(b"\\n\t") == r"\\n\t"
    assert escaped("naïve 中".encode()) == r"naïve\s中"
    assert escaped(b"\xe4\xb8") == r"\xe4\xb8"
    assert escaped("\xa0\x1b".encode()) == r"\u00a0\u001b"
