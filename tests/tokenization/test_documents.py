"""Documents as bytes: counting characters, and splitting into chunks without changing tokens."""

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from lm.tokenization.documents import SEPARATOR, character_offset, character_starts, chunks, count_characters
from lm.tokenization.vocabulary import KINDS, train_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WORDS = ["the", "boat", "isn't", "naïve", "'s", "中文字", "。", "ไทย", "12", "!?", "\U0001f642", "e\u0301"]
SPACES = [*" \t\n\r\v\f\x1c\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000", "  ", "\r\n"]
LEARNED_FROM = [
    "".join(WORDS[i % 5 :] + SPACES + WORDS) + "the boat went out to the sea\n" for i in range(50)
]
TRAINED = {
    kind: train_tokenizer(kind, LEARNED_FROM, None if kind in ("char", "word") else 400) for kind in KINDS
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


@pytest.mark.slow
@given(words=st.lists(TEXTS, max_size=30), size=st.integers(8, 40))
@settings(deadline=None)
@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
def test_chunks_of_limited_length_lose_nothing(kind, words, size):
    text = " ".join(words)
    parts = list(chunks(text.encode(), size, longest=size))
    assert b"".join(parts) == text.encode()
    assert all(len(part) <= size for part in parts)
    ids = [i for part in parts for i in TRAINED[kind].encode(part.decode())]
    assert TRAINED[kind].decode(ids) == text


def assert_chunks_change_no_token(kind, text, size):
    parts = list(chunks(text.encode(), size))
    assert b"".join(parts) == text.encode()
    ids = [i for part in parts for i in TRAINED[kind].encode(part.decode())]
    assert ids == TRAINED[kind].backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "It's the boat; it went out (again), to the sea.\n\n    And 1,024 boats' sails\twere  seen! ",
        "the\nboat\nwent\nout\n",
        "the\tboat\r\nwent\tout\r\n",
        "the\xa0boat\u2028went\u3000 out\xa0\n",
        "theboatwentouttothesea",
        "我们去海边。今天天气很好。",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_chunks_of_a_text_change_no_token(kind, text, size):
    assert_chunks_change_no_token(kind, text * 9, size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.sampled_from(WORDS + SPACES), max_size=60), size=st.integers(1, 60))
@settings(deadline=None)
def test_chunks_of_words_and_spaces_change_no_token(kind, parts, size):
    assert_chunks_change_no_token(kind, "".join(parts), size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, size=st.integers(1, 30))
@settings(deadline=None)
def test_chunks_of_any_text_change_no_token(kind, text, size):
    assert_chunks_change_no_token(kind, text, size)


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def test_chunks_change_no_token_of_punctuation_and_a_line_break():
    """The pre-tokenizer of Llama 3 joins them."""
    text = ("今天天气很好。\n" * 40 + "我们去海边\n" + "{}\n" * 200 + "a boat;\n") * 4
    tokenizer = Tokenizer(BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), bytes_of]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    for size in (1000, 1500, 2000):
        parts = list(chunks(text.encode(), size))
        assert len(parts) > 3
        ids = [token for part in parts for token in tokenizer.encode(part.decode()).ids]
        assert ids == tokenizer.encode(text).ids


def test_a_chunk_is_as_long_as_a_word_but_no_longer():
    text = b"to " + b"x" * 50 + b" and\tthe\nsea"
    assert list(chunks(text, 8)) == [b"to", b" " + b"x" * 50, b" and\tthe", b"\nsea"]
    assert list(chunks("é".encode() * 5, 3, longest=7)) == ["ééé".encode(), "éé".encode()]
