"""Words in messages: suggestions for misspelled names."""

from hypothesis import given, strategies as st

from lm.console.wording import did_you_mean, format_bytes, similar


@given(st.text(), st.lists(st.text(min_size=1)))
def test_an_error_about_a_name_ends_in_a_suggestion_or_a_period(name, known):
    near = similar(name, known)
    assert did_you_mean(name, known) == (f"; did you mean '{near}'?" if near else ".")
    assert near is None or near in known


def test_similar_names_are_found_whatever_the_case():
    assert similar("Hiden_Size", ["layers", "hidden_size"]) == "hidden_size"
    assert similar("text", ["ID", "TEXT"]) == "TEXT"
    assert similar("cell", ["steps", "lr"]) is None


def test_sizes_have_two_digits_or_more_in_a_readable_unit():
    sizes = (93, 31_528, 2_640_000, 9_960_000, 512e6, 3.21e9)
    assert [*map(format_bytes, sizes)] == ["93 bytes", "32 KB", "2.6 MB", "10 MB", "512 MB", "3.2 GB"]
