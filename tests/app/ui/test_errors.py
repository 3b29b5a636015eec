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
        ("boat is incomplete: config.json is missing.", "boat is incomplete: config.json is missing."),
        ("the text is empty: there is nothing to score.", "The text is empty: there is nothing to score."),
        ("the table has no rows: name another table.", "The table has no rows: name another table."),
        (
            "a b has no column 'x'; it has y, z; did you mean 'y'?",
            "a b has no column 'x'; it has y, z. Did you mean “y”?",
        ),
        ("h is always between -1 and 1.", "h is always between -1 and 1."),
        (
            "Value: nomodel is not in the list of choices: ['one']",
            "nomodel is not one of the choices: choose another, or reload the page.",
        ),
        (
            "Value: text:01 (type: <class 'str'>) is not in the list of choices: []",
            "text:01 is not one of the choices: choose another, or reload the page.",
        ),
    ],
)
def test_messages_begin_with_a_capital_letter_unless_with_a_name(message, shown):
    assert as_sentence(message) == shown
