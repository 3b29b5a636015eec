"""Quotes in error messages are one printable line of limited length."""

import pytest

from lm.errors import one_line


@pytest.mark.parametrize(
    ("quoted", "line"),
    [
        ("two\nlines\t of  text ", "two lines of text"),
        ("a" * 21, "a" * 19 + "…"),
        ("\x1b[31m", "\ufffd[31m"),
        ("", ""),
        (" \n", ""),
        (ValueError("wrong"), "wrong"),
        (ValueError(), "ValueError"),
        (KeyboardInterrupt(" "), "KeyboardInterrupt"),
    ],
)
def test_a_text_or_an_exception_is_quoted_on_one_line(quoted, line):
    assert one_line(quoted, 20) == line
