"""Control characters become visible and can be restored."""

from hypothesis import given, settings, strategies as st

from lm.console.escaping import escaped, unescaped


@given(st.binary())
@settings(deadline=None)
def test_escaped_bytes_are_one_visible_word_and_can_be_restored(part):
    text = escaped(part)
    assert unescaped(text) == part
    assert len(text.split()) == bool(text) and text == text.strip()
    assert "\x1b" not in text


@given(st.text())
@settings(deadline=None)
def test_escaped_characters_can_be_restored(text):
    assert unescaped(escaped(text.encode())) == text.encode()


def test_examples():
    assert escaped(b" a\n") == r"\sa\n"
    assert escaped(b"\\n\t") == r"\\n\t"
    assert escaped("naïve 中".encode()) == r"naïve\s中"
    assert escaped(b"\xe4\xb8") == r"\xe4\xb8"
    assert escaped("\xa0\x1b".encode()) == r"\u00a0\u001b"
