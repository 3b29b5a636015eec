"""Vocabularies: frequent enough, of the right size, and external ones unchanged."""

import argparse
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from lm.data.find_source import find_tokenizer
from lm.errors import ModelError, UserError
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS, count_words, load_external, train_tokenizer


def types(tokenizer):
    return set(tokenizer.backend.get_vocab()) - {"<eos>", "<unk>"}


def test_rare_characters_become_unk():
    assert types(train_tokenizer("char", ["aaabbc"], min_frequency=2)) == {"a", "b"}


def test_char_and_word_vocabularies_keep_the_most_common():
    assert types(train_tokenizer("char", ["aaabbc"], vocab_size=4)) == {"a", "b"}
    words = train_tokenizer("word", ["b b a a a c <unk>\n"], vocab_size=4)
    assert types(words) == {"a", "b"}
    assert words.vocab_size == 4


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_piece_vocabularies_have_the_requested_size(kind):
    text = Path(argparse.__file__).read_text()
    assert train_tokenizer(kind, [text], 320).vocab_size == 320
    with pytest.raises(UserError, match="--vocab-size 100 is too small"):
        train_tokenizer(kind, [text], 100)


def test_byte_is_its_own_id():
    tokenizer = train_tokenizer("byte", [])
    assert tokenizer.encode("aé\0").tolist() == list("aé\0".encode())
    assert (tokenizer.vocab_size, tokenizer.eos, tokenizer.unk) == (257, 256, None)


def test_counting_too_many_words_drops_the_least_common():
    counts = count_words(["a a a b b", "c d e", "a b"], limit=4)
    assert counts == {"a": 4, "b": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_of_a_text_with_a_very_long_word_is_readable(tmp_path, kind):
    tokenizer = train_tokenizer(kind, [f"the sea {'x' * 4500}\n"] * 9, 300)
    tokenizer.save(tmp_path / "tokenizer.json")
    again, text = Tokenizer.load(tmp_path / "tokenizer.json"), f"the sea {'x' * 4000}"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_a_vocabulary_of_words_with_many_commas_is_readable(tmp_path):
    tokenizer = train_tokenizer("word", [f'a{number}\\"{"," * 3990} ' for number in range(640)])
    tokenizer.save(tmp_path / "tokenizer.json")
    assert types(Tokenizer.load(tmp_path / "tokenizer.json")) == types(tokenizer)


@pytest.fixture
def external(tmp_path):
    """An external tokenizer: lowercases, truncates after five tokens, has no <eos>."""
    backend = tokenizers.Tokenizer(
        models.WordLevel({"[UNK]": 0, "the": 1, "sea": 2, "was": 3}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.enable_truncation(5)
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_external_tokenizer_reads_whole_texts_and_gets_an_eos(external, name):
    tokenizer, _ = load_external(find_tokenizer(str(external / name)))
    assert tokenizer.eos == 4
    assert tokenizer.unk == 0
    assert tokenizer.encode("The sea was the sea was wide").tolist() == [1, 2, 3, 1, 2, 3, 0]


def test_different_tokenizer_file_has_a_different_hash(external):
    _, before = load_external(find_tokenizer(str(external)))
    path = external / "tokenizer.json"
    path.write_text(path.read_text().replace('"sea"', '"see"'))
    assert load_external(find_tokenizer(str(external)))[1] != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", "{", r"t\.json is not a readable tokenizer"),
        ("missing.json", None, r"no tokenizer file '.*missing\.json'"),
        ("no such/thing/at all", None, "no tokenizer file"),
    ],
)
def test_unusable_tokenizer_is_a_one_line_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((UserError, ModelError), match=message) as raised:
        load_external(find_tokenizer(str(tmp_path / name)))
    assert "\n" not in str(raised.value)
