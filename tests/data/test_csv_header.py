"""The first row of CSV: names of columns, or data."""

import pytest

from lm.data.csv_header import like_data
from tests.data.conftest import read, warnings_of, written

QUESTION = "How satisfied are you with the service in general?"
TWEETS = [
    ["Our neighbour counts the harbour."],
    ["The cook looks for it."],
    ["The ferry counts three lamps."],
]
STAMPS = ["2026-01-01 10:00", "2026-01-02 11:30", "2026-01-02 12:00"]
ANSWERS = [
    "The staff was friendly and answered all of our questions at once.",
    "We had to wait for an hour, and the soup was cold when it came.",
    "Would come again, but there is no menu in French.",
]
LABELED = [
    ["good", "I like it"],
    ["bad", "I do not"],
    ["good", "Fine"],
    ["bad", "No"],
    ["good", "Ok"],
    ["bad", "-"],
]


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        (["text"], TWEETS),
        (
            ["What our followers wrote in the spring of last year, in full and in the order of their names"],
            TWEETS,
        ),
        # The questions of a form, above figures, categories and text.
        (["Timestamp", QUESTION], [[stamp, answer] for stamp, answer in zip(STAMPS, "453", strict=True)]),
        ([QUESTION, "Why?"], [[answer, answer] for answer in ANSWERS]),
        ([QUESTION], [["Yes"], ["No"], ["Yes"], ["Yes"], ["No"], ["Yes"]]),
        (
            ["Timestamp", "Please describe your experience in a few words."],
            list(zip(STAMPS, ANSWERS, strict=True)),
        ),
        (["The label of the annotators", "The full text of the tweet"], LABELED),
        (["id", ""], [["1", "a"], ["2", "b"]]),
        (["", "text"], [["0", "a"], ["1", "b"]]),
        (["id", "2019"], [["a", "one"], ["b", "two"]]),  # not figures below the figure
        (["price of it in euros"], [["1.50 €"], ["-3"], ["12%"]]),
    ],
)
def test_names_of_columns(first, rows):
    assert like_data(first, rows) is None


@pytest.mark.parametrize(
    ("first", "rows", "cell"),
    [
        (["A small boat repairs the square."], TWEETS, "A small boat repairs the square."),
        (["A small boat repairs the square"], TWEETS, "A small boat repairs the square"),
        (["一曲新词酒一杯。"], [["夕阳西下几时回？"], ["小园香径独徘徊。"]], "一曲新词酒一杯。"),
        (
            ["Is this a question?"],
            [["No?"], ["Yes, it is one indeed?"], ["Why is it one?"]],
            "Is this a question?",
        ),
        (["3", "the text"], [["4", "more"], ["5", "and more"]], "3"),
        (["2026-01-03 08:00", "the text"], [[stamp, "more"] for stamp in STAMPS], "2026-01-03 08:00"),
        (["3", "text"], [["4", "more"], ["five", "and more"]], "3"),
        (["bad", "He laughed"], LABELED, "bad"),
        (["bad ", "He laughed"], LABELED, "bad"),
        (["Only one row of text, and nothing below it"], [], "Only one row of text, and nothing below it"),
        (["12", "34"], [], "12"),
        (
            ["one two three four five", "x"],
            [["six seven eight nine", "y"], ["short"]],
            "one two three four five",
        ),
    ],
)
def test_data(first, rows, cell):
    assert like_data(first, rows) == cell


def test_numbers_of_categories_and_prompts_have_limits():
    five = [["Yes"], ["No"], ["Yes"], ["Yes"], ["No"]]
    assert like_data(["A long answer of a user ."], [[f"{a} {'-' * 20}"] for (a,) in five]) is not None
    assert like_data(["A long answer of a user ."], [[f"{a} {'-' * 20}"] for (a,) in [*five, ["No"]]]) is None
    some = [[f"answer {'x' * 20} {number}"] for number in range(9)]
    assert like_data(["Is this a question, or not?"], [*some, ["Is it?"]]) is not None
    assert like_data(["Is this a question, or not?"], [*some, ["y"], ["Is it?"]]) is None


def test_blank_line_before_the_header_is_not_a_row(tmp_path):
    path = written(tmp_path / "a.csv", "\nid,text\n1,one\n2,two\n")
    assert read(path) == ["one", "two"]
    assert warnings_of(path) == []


def test_only_row_below_the_header_counts(tmp_path):
    (warning,) = warnings_of(written(tmp_path / "a.csv", "A\nA\n"))
    assert "looks like data ('A')" in warning
