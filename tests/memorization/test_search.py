"""Copied text: all of it is found, and nothing else."""

import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.memorization.search import BREAK, find_copied
from lm.memorization.training_text import DecodedText
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.vocabulary import KINDS, char_tokenizer, train_tokenizer
from tests.tokenization.test_positions import lowercase_wordpiece

# é and © share their second byte, as do many of the others; 😀 is a surrogate pair in UTF-16.
LETTERS = "ab é©中丮😀🙀\n"
SAMPLE = "the boat ab é ©中 丮\n😀🙀 a b\n" * 40
TOKENIZERS = {kind: train_tokenizer(kind, [SAMPLE], 300) for kind in KINDS} | {"other": lowercase_wordpiece()}


def cut(text, block, length):
    """`text` in blocks that overlap by `length - 1` characters."""
    return [text[max(begin - length + 1, 0) : begin + block] for begin in range(0, len(text), block)]


def stream(kind, documents, block=50):
    """The documents as a token stream."""
    tokenizer = TOKENIZERS[kind]
    text = SEPARATOR.join(document.encode() for document in documents)
    return DecodedText(tokenizer, tokenizer.encode_bytes(text), block)


def expected_spans(text, documents, length):
    """By definition: the longest substrings that occur in a document, joined where they overlap or touch."""
    spans = []
    for start in range(len(text)):
        end = start
        while end < len(text) and any(text[start : end + 1] in document for document in documents):
            end += 1
        if end - start >= length:
            if spans and start <= spans[-1][1]:
                start, last = spans.pop()
                end = max(last, end)
            spans.append((start, end))
    return spans


@st.composite
def documents_and_text(draw, units=LETTERS):
    """Documents, and a text made of parts of them and other text."""
    some = st.lists(st.sampled_from(units), min_size=1, max_size=50).map("".join)
    pieces = draw(st.lists(some, min_size=1, max_size=3))
    document = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    documents = draw(st.lists(document, min_size=1, max_size=4))
    parts = []
    for source in draw(st.lists(st.sampled_from(documents), min_size=1, max_size=4)):
        begin = draw(st.integers(0, max(0, len(source) - 10)))
        parts.append(source[begin : begin + draw(st.integers(5, 60))])
        parts.append(draw(st.sampled_from(["", "?", *units])))
    return documents, "".join(parts)


@pytest.mark.slow
@given(drawn=documents_and_text(), length=st.integers(1, 40), block=st.integers(1, 99))
@settings(deadline=None, max_examples=200)
def test_copies_match_their_definition(drawn, length, block):
    documents, text = drawn
    blocks = cut(BREAK.join(documents), block, length)
    assert find_copied(text, blocks, length=length) == (expected_spans(text, documents, length), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "unigram"])
@given(drawn=documents_and_text(), length=st.integers(10, 30), block=st.integers(1, 99))
@settings(deadline=None, max_examples=100)
def test_copies_in_a_token_stream_match_their_definition(kind, drawn, length, block):
    documents, text = drawn
    found = find_copied(text, stream(kind, documents, block), length=length)
    assert found == (expected_spans(text, documents, length), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["word", "other"])
@given(
    drawn=documents_and_text(["the ", "the\n", "boat ", "hat ", "中 ", "😀", "unknown ", "\n", "  ", "\t"]),
    block=st.integers(1, 99),
)
@settings(deadline=None, max_examples=150)
def test_tokenizers_that_lose_white_space_match_the_text_as_they_decode_it(kind, drawn, block):
    documents, text = drawn
    tokenizer = TOKENIZERS[kind]
    if kind == "word":  # the end of a document is a line break
        joined = SEPARATOR.join(document.encode() for document in documents)
        decoded = [tokenizer.decode(tokenizer.encode_bytes(joined))]
    else:
        decoded = [tokenizer.decode(tokenizer.encode(document)) for document in documents]
    known = [part for document in decoded for part in document.split("<unk>")]
    text = tokenizer.decode(tokenizer.encode(text))
    spans, _ = find_copied(text, stream(kind, documents, block), length=20)
    assert spans == expected_spans(text, known, 20)


def letters(number, seed=0):
    """Random letters: hardly any three in a row occur twice."""
    return "".join(map(chr, np.random.default_rng(seed).integers(0x61, 0x7B, number)))


@pytest.mark.parametrize("length", [1, 2, 29, 30, 31, 200])
def test_a_copy_is_found_at_every_offset_and_one_character_less_is_not(length):
    body = letters(400)
    for offset in range(length + 1):
        blocks = ["A" * offset + body]
        for begin in (0, 1, 400 - length):
            copy = body[begin : begin + length]
            assert find_copied(f"B{copy}B", blocks, length=length)[0] == [(1, 1 + length)]
            assert find_copied(f"中{copy[1:]}中", blocks, length=length)[0] == []


def test_no_copy_crosses_the_end_of_a_document_or_an_unknown_character():
    body = letters(80)
    assert find_copied(body, stream("byte", [body[:50], body[50:]]))[0] == [(0, 80)]  # two copies that touch
    assert find_copied(body, stream("byte", [body[:60], body[60:]]))[0] == [(0, 60)]
    tokenizer = char_tokenizer(dict.fromkeys(body, 1))
    with_unknown = body[:35] + "Ω" + body[35:]
    blocks = DecodedText(tokenizer, tokenizer.encode(with_unknown))
    assert find_copied(with_unknown, blocks)[0] == [(0, 35), (36, 81)]
    blocks = DecodedText(tokenizer, tokenizer.encode(body[:50] + "Ω" * 60))
    assert find_copied("Ω" * 60, blocks)[0] == []


@pytest.mark.parametrize("mark", ["<unk>", "<eos>", "\ufffd", "\xff", "\0", "\udcff", "\ud83d", "\ud800"])
def test_nothing_in_the_text_matches_the_end_of_a_document(mark):
    body = letters(80)
    text = body[:35] + mark + body[35:]
    end = 35 + len(mark)
    assert find_copied(text, stream("byte", [body[:35], body[35:]]))[0] == [(0, 35), (end, end + 45)]


def test_part_of_a_character_is_not_a_copy():
    body = letters(40)
    assert find_copied("©" + body + "丮", stream("byte", ["é" + body + "中"]))[0] == [(1, 41)]


def test_long_runs_of_one_character_are_searched_in_time():
    blocks = stream("byte", ["-" * n + letters(9, n) for n in range(1, 900)], 1 << 16)
    assert find_copied("-" * 3000, blocks, seconds=5) == ([(0, 3000)], 1.0)


@pytest.mark.slow
def test_the_search_stops_at_its_time_limit():
    class Slow(list):
        def __iter__(self):
            for block in super().__iter__():
                yield block
                time.sleep(0.6)

    body = letters(80)
    blocks = Slow([body[:40], body[40:]])
    assert find_copied(body, blocks, seconds=0) == ([], 0.0)
    assert find_copied(body, blocks, seconds=0.5) == ([(0, 40)], 0.5)
    assert find_copied(body, blocks, seconds=60) == ([(0, 80)], 1.0)


def test_no_text_is_no_copy():
    assert find_copied("", ["a" * 40]) == ([], 1.0)
    assert find_copied("a" * 29, ["a" * 40]) == ([], 1.0)
    assert find_copied("a" * 40, []) == ([], 0.0)
