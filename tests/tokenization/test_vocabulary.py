"""Vocabularies: what is frequent enough, as much as fits, and ready ones as they are."""

import argparse
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from lm.data.sources import find_tokenizer
from lm.errors import ModelError, UserError
from lm.tokenization.vocabulary import count_words, load_external, train_tokenizer


def types(tokenizer):
    return set(tokenizer.backend.get_vocab()) - {"<eos>", "<unk>"}


def test_rare_characters_become_unk():
    assert types(train_tokenizer("char", ["aaabbc"], min_frequency=2)) == {"a", "b"}


def test_a_vocabulary_of_characters_or_words_keeps_the_commonest():
    assert types(train_tokenizer("char", ["aaabbc"], vocab_size=4)) == {"a", "b"}
    words = train_tokenizer("word", ["b b a a a c <unk>\n"], vocab_size=4)
    assert types(words) == {"a", "b"}
    assert words.vocab_size == 4


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_are_as_many_as_asked_for(kind):
    text = Path(argparse.__file__).read_text()
    assert train_tokenizer(kind, [text], 320).vocab_size == 320
    with pytest.raises(UserError, match="--vocab-size 100 is too small"):
        train_tokenizer(kind, [text], 100)


def test_a_byte_is_its_own_id():
    tokenizer = train_tokenizer("byte", [])
    assert tokenizer.encode("aé\0").tolist() == list("aé\0".encode())
    assert (tokenizer.vocab_size, tokenizer.eos, tokenizer.unk) == (257, 256, None)


def test_counting_words_forgets_the_rarest_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("lm.tokenization.vocabulary._COUNTED_WORDS", 4)
    counts = count_words(["a a a b b", "c d e", "a b"])
    assert counts == {"a": 4, "b": 3}


@pytest.fixture
def foreign(tmp_path):
    """A tokenizer of another make: lower case, cut off after five tokens, without <eos>."""
    backend = tokenizers.Tokenizer(
        models.WordLevel({"[UNK]": 0, "the": 1, "sea": 2, "was": 3}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.enable_truncation(5)
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_a_ready_tokenizer_is_read_whole_and_given_an_eos(foreign, name):
    tokenizer, _ = load_external(find_tokenizer(str(foreign / name)))
    assert tokenizer.eos == 4
    assert tokenizer.unk == 0
    assert tokenizer.encode("The sea was the sea was wide").tolist() == [1, 2, 3, 1, 2, 3, 0]


def test_another_tokenizer_file_has_another_hash(foreign):
    _, before = load_external(find_tokenizer(str(foreign)))
    path = foreign / "tokenizer.json"
    path.write_text(path.read_text().replace('"sea"', '"see"'))
    assert load_external(find_tokenizer(str(foreign)))[1] != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", "{", r"t\.json is not a readable tokenizer"),
        ("missing.json", None, r"no tokenizer file '.*missing\.json'"),
        ("no such/thing/at all", None, "no tokenizer file"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((UserError, ModelError), match=message) as refused:
        load_external(find_tokenizer(str(tmp_path / name)))
    assert "\n" not in str(refused.value)
