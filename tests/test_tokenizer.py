"""Every kind of tokenizer gives back the text it was given, is saved in one file that Hugging Face
`tokenizers` reads alike, and never shows half a character."""

import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

from lm.errors import ModelError, UserError
from lm.tokenizer import Tokenizer
from lm.vocabulary import train_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SAMPLE = f"naïve e\u0301 {FAMILY} 中文 العربية\r\n\ttab <eos> <unk> end"


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer("bpe", iter(["the boat went out to the sea\n" * 50]), 300)


@given(text=TEXTS)
@settings(deadline=None)
def test_char_gives_back_text_of_known_characters(text):
    tokenizer = train_tokenizer("char", iter([text]))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert ids.tolist() == tokenizer.backend.encode(text, add_special_tokens=False).ids


@given(text=TEXTS)
@settings(deadline=None)
def test_bpe_gives_back_any_text(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_saved_and_read_by_others_alike(kind, tmp_path):
    tokenizer = train_tokenizer(kind, iter([SAMPLE]), 400)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert again.kind == kind
    assert again.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()
    plain = SAMPLE.replace("<eos>", "")  # which others take for the token
    assert theirs.decode(theirs.encode(plain).ids) == plain
    assert again.vocab_size == theirs.get_vocab_size()


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_the_pieces_of_a_stream_are_the_text_and_never_half_a_character(kind):
    tokenizer = train_tokenizer(kind, iter([SAMPLE]), 300)
    stream = tokenizer.decode_stream()
    pieces = [stream.step(token) for token in tokenizer.encode(SAMPLE)]
    assert "".join(pieces) == SAMPLE
    assert not any("\ufffd" in piece for piece in pieces)


def test_written_out_special_tokens_are_text():
    tokenizer = train_tokenizer("char", iter(["<eos>ab"]))
    assert tokenizer.eos not in tokenizer.encode("<eos>")
    tokenizer = train_tokenizer("bpe", iter(["<eos>ab"]), 300)
    assert tokenizer.eos not in tokenizer.encode("<eos>")


def test_unknown_characters_become_unk_and_are_named():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    assert tokenizer.encode("azb").tolist()[1] == tokenizer.unk
    assert tokenizer.unknown_in("a日z日") == ["日", "z"]


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(UserError, match="--vocab-size 100 is too small"):
        train_tokenizer("bpe", iter(["text"]), 100)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": 1}'])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path / "tokenizer.json")
