"""Documents as bytes: counting characters, and splitting into chunks without changing tokens."""

import pytest
from hypothesis import given, settings, strategies as st

from lm.tokenization.documents import SEPARATOR, character_offset, character_starts, chunks, count_characters
from lm.tokenization.vocabulary import train_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TRAINED = {
    kind: train_tokenizer(kind, ["the boat went out to the sea\n" * 50], 300)
    for kind in ("byte", "bpe", "unigram")
}


@given(documents=st.lists(TEXTS, min_size=1, max_size=4))
def test_characters_are_counted_and_found_without_separators(documents):
    text = SEPARATOR.join(document.encode() for document in documents)
    characters = "".join(documents)
    assert count_characters(text) == len(characters)
    assert len(character_starts(text)) == len(characters) + len(documents) - 1
    for number, character in enumerate(characters):
        assert text[character_offset(text, number) :].startswith(character.encode())
    assert character_offset(text, len(characters)) == len(text)


@given(words=st.lists(TEXTS, max_size=30), size=st.integers(8, 40))
@settings(deadline=None)
@pytest.mark.parametrize("kind", TRAINED)
def test_chunks_lose_nothing(kind, words, size):
    text = " ".join(words)
    parts = list(chunks(text.encode(), size))
    assert b"".join(parts) == text.encode()
    assert all(len(part) <= size for part in parts)
    ids = [i for part in parts for i in TRAINED[kind].encode(part.decode())]
    assert TRAINED[kind].decode(ids) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_chunks_of_ordinary_text_change_no_token(kind):
    text = "It's the boat; it went out (again), to the sea.\n\n    And 1,024 boats' sails\twere  seen! " * 9
    ids = [i for part in chunks(text.encode(), 64) for i in TRAINED[kind].encode(part.decode())]
    assert ids == TRAINED[kind].backend.encode(text, add_special_tokens=False).ids
