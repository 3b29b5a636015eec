"""How messages are shown on the page."""

import pytest

from app.ui.errors import as_sentence


@pytest.mark.parametrize(
    "message, shown",
    [
        ("several columns of letters contain text.", "Several columns of letters contain text."),
        ("half-open intervals: two of them.", "Half-open intervals: two of them."),
        ("hotel.txt is not UTF-8.", "hotel.txt is not UTF-8."),
        ("--encoding 'latin-99' is not known.", "“Encoding” 'latin-99' is not known."),
        ("'boat' no longer exists.", "'boat' no longer exists."),
    ],
)
def test_messages_begin_with_a_capital_letter_unless_with_a_name(message, shown):
    assert as_sentence(message) == shown
