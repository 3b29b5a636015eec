"""--encoding takes every encoding that Python decodes files with; other names are an error with a hint."""

import pytest

from lm.data.encodings import check_encoding
from lm.errors import UserError


@pytest.mark.parametrize(
    "name", ["cp1252", "windows-1252", "UTF-16", "gb18030", "utf8", "latin-1", "big5hkscs"]
)
def test_encodings_of_python_are_known(name):
    assert check_encoding(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gb1803", "did you mean 'gb18030'"),
        ("cp12522", "did you mean 'cp1252'"),
        ("base64", "examples"),
        ("rot13", "examples"),
        ("undefined", "examples"),
        ("a\0b", "examples"),
    ],
)
def test_unknown_encoding_is_an_error_with_a_hint(name, hint):
    with pytest.raises(UserError, match=hint):
        check_encoding(name)
