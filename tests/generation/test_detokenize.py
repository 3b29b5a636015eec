"""Stop strings and the text that is displayed, token by token."""

from hypothesis import given, settings, strategies as st

from lm.generation.detokenize import ForwardDetokenizer


class Letters:
    """A tokenizer whose tokens are letters."""

    end = 0

    def decode_stream(self, after):
        return self

    def step(self, token):
        return chr(token)


@given(text=st.text("ab<>", max_size=30), stops=st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3))
@settings(deadline=None)
def test_a_stop_string_ends_the_text_and_no_part_of_it_is_displayed(text, stops):
    detokenizer, displayed = ForwardDetokenizer(Letters(), stops, context=[]), ""
    for number, letter in enumerate(text, start=1):
        displayed += detokenizer.add(ord(letter), last=number == len(text))
        if detokenizer.ended:
            break
    # The first stop string to be completed ends the text where it starts.
    ends = [text.find(s) + len(s) for s in stops if s in text]
    if not ends:
        assert displayed == text
    else:
        seen = text[: min(ends)]
        assert displayed == seen[: min(seen.find(s) for s in stops if s in seen)]
