"""Text in files: splitting it into blocks or parts loses nothing."""

import pytest
from hypothesis import given, settings, strategies as st

from lm.data import text as text_module
from lm.data.text import Text, save_text
from lm.tokenization.documents import SEPARATOR, count_characters
from lm.tokenization.vocabulary import KINDS, train_tokenizer

DOCUMENTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), min_size=1)


def as_bytes(documents):
    return SEPARATOR.join(document.encode() for document in documents)


def read(text):
    return b"".join(text.blocks())


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK", 16)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("text") / "t.text"


@given(documents=DOCUMENTS, size=st.integers(8, 60))
@settings(deadline=None)
def test_blocks_join_to_the_text_and_split_no_character(file, documents, size):
    text = save_text(file, [as_bytes(documents)])
    before, text_module.BLOCK = text_module.BLOCK, size
    try:
        blocks = list(text.blocks())
    finally:
        text_module.BLOCK = before
    assert b"".join(blocks) == as_bytes(documents)
    for block in blocks:
        block.replace(SEPARATOR, b"").decode()
    assert not any(block.startswith(SEPARATOR) for block in blocks[1:])
    assert sum(map(count_characters, blocks)) == sum(map(len, documents))


PARTS = st.sampled_from(["the", "boat", "中文", "isn't", *" \t\n\r\xa0\u2028"])
TRAINED = {kind: train_tokenizer(kind, ["the boat isn't 中文\n" * 50], vocab_size=300) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(documents=st.lists(st.lists(PARTS, min_size=1).map("".join), min_size=1), size=st.integers(1, 60))
@settings(deadline=None)
def test_blocks_change_no_token(file, kind, documents, size):
    text = save_text(file, [as_bytes(documents)])
    before, text_module.BLOCK = text_module.BLOCK, size
    try:
        blocks = list(text.blocks(whole_words=kind == "word"))
    finally:
        text_module.BLOCK = before
    ids = [i for block in blocks for i in TRAINED[kind].encode_bytes(block).tolist()]
    assert ids == TRAINED[kind].encode_bytes(as_bytes(documents)).tolist()


def test_a_word_is_cut_after_a_megabyte_unless_it_is_wanted_whole(tmp_path):
    text = save_text(tmp_path / "t", [b"x" * 3_000_000 + b" y"])
    assert list(map(len, text.blocks())) == [1 << 20, 1 << 20, 3_000_000 - (2 << 20), 2]
    assert list(map(len, text.blocks(whole_words=True))) == [3_000_000, 2]


@given(documents=DOCUMENTS, data=st.data())
@settings(deadline=None)
def test_splitting_by_characters_loses_at_most_a_separator(file, documents, data):
    text = save_text(file, [as_bytes(documents)])
    total = sum(map(len, documents))
    position = data.draw(st.integers(0, total))
    first, second = (read(part) for part in text.split_at(position))
    assert (count_characters(first), count_characters(second)) == (position, total - position)
    assert not first.endswith(SEPARATOR)
    assert not second.startswith(SEPARATOR)
    assert first.replace(SEPARATOR, b"") + second.replace(SEPARATOR, b"") == "".join(documents).encode()


@pytest.mark.slow
@given(documents=DOCUMENTS, limit=st.integers(1, 50), size=st.integers(1, 9))
@settings(deadline=None)
def test_limit_keeps_the_first_characters(file, documents, limit, size):
    whole = as_bytes(documents)
    # Pieces as a reader yields them: never ending with a separator.
    pieces = [SEPARATOR * (i > 0) + document.encode() for i, document in enumerate(documents)]
    text = read(save_text(file, pieces, limit))
    assert count_characters(text) == min(limit, count_characters(whole))
    assert whole.startswith(text)
    assert not text.endswith(SEPARATOR)


def test_part_of_a_file_is_a_text(tmp_path, small_blocks):
    (tmp_path / "t").write_bytes(b"0123456789" * 20)
    assert read(Text(tmp_path / "t", 5, 105)) == b"5678901234" * 10
