"""Every kind of tokenizer reproduces text, is saved in a file that Hugging Face `tokenizers` reads the same
way, and never shows partial characters."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

from lm.errors import ModelError
from lm.storage.transformers_files import tokenizer_files
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.tokenizer import Tokenizer, describe_unknown
from lm.tokenization.vocabulary import train_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SAMPLE = f"naïve e\u0301 {FAMILY} 中文 العربية हिन्दी \0 \r\n\ttab <eos> <unk> <0x41> ▁ Ġ end"
EXACT = ("byte", "bpe", "unigram")
KINDS = ("char", *EXACT, "word")

TRAINED = {kind: train_tokenizer(kind, ["the boat went out to the sea\n" * 50], 300) for kind in EXACT}


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return train_tokenizer(request.param, [SAMPLE], 400)


@pytest.mark.parametrize("kind", EXACT)
@given(text=TEXTS)
@settings(deadline=None)
def test_any_text_is_reproduced_exactly(kind, text):
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not np.isin(ids, [tokenizer.eos, -1 if tokenizer.unk is None else tokenizer.unk]).any()


@given(text=TEXTS)
@settings(deadline=None)
def test_char_reproduces_text_of_known_characters(text):
    tokenizer = train_tokenizer("char", [text])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert ids.tolist() == tokenizer.backend.encode(text, add_special_tokens=False).ids


@given(text=TEXTS)
@settings(deadline=None)
def test_word_reproduces_words_and_lines(text):
    tokenizer = train_tokenizer("word", [text])
    ids = tokenizer.encode(text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    assert tokenizer.decode(ids) == "\n".join(lines).replace("<eos>", "\n")
    assert ids.tolist() == tokenizer.backend.encode(text, add_special_tokens=False).ids


def test_word_counts_like_published_results():
    """One <eos> per line, and a literal <unk> is <unk>: Penn Treebank has 10,000 types."""
    tokenizer = train_tokenizer("word", [" the <unk> sat \n the end \n"])
    assert tokenizer.vocab_size == 5  # <unk> <eos> the sat end
    ids = tokenizer.encode(" the <unk> sat \n the end \n").tolist()
    assert len(ids) == 7
    assert (ids[1], ids[3], ids[6]) == (tokenizer.unk, tokenizer.eos, tokenizer.eos)


@pytest.mark.slow
@given(documents=st.lists(TEXTS.filter(bool), min_size=1, max_size=5))
@settings(deadline=None)
@pytest.mark.parametrize("kind", KINDS)
def test_encoding_bytes_equals_encoding_their_documents(kind, documents):
    tokenizer = TRAINED.get(kind) or train_tokenizer(kind, documents)
    ids = tokenizer.encode_bytes(SEPARATOR.join(d.encode() for d in documents))
    if kind == "word":  # where a line end also separates documents
        *others, last = documents
        lines = [document.removesuffix("\n") + "\n" for document in others]
        expected = tokenizer.encode("".join(lines) + last).tolist()
    else:
        ends = ([tokenizer.eos] * (i > 0) for i in range(len(documents)))
        expected = [i for end, d in zip(ends, documents, strict=True) for i in [*end, *tokenizer.encode(d)]]
    assert ids.tolist() == expected
    assert ids.dtype == np.uint16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=st.text(st.sampled_from("abS1 \n\t\r\x0b\x1c\x00'_;.\"") | st.characters(max_codepoint=127)))
@settings(deadline=None, max_examples=300)
def test_ascii_words_from_the_cache_have_the_same_tokens(kind, text):
    tokenizer = TRAINED[kind]
    assert tokenizer.subwords.splits_like_gpt_2
    expected = tokenizer.backend.encode(text, add_special_tokens=False).ids
    with pytest.MonkeyPatch.context() as patch:
        for cores in (1, 64):  # from the cache, and merged
            patch.setattr("lm.tokenization.subwords.available_cores", lambda: cores)  # noqa: B023
            assert tokenizer.encode(text).tolist() == expected
    assert TRAINED["byte"].encode(text).tolist() == TRAINED["byte"].backend.encode(text).ids


def test_saved_tokenizer_is_read_the_same_by_tokenizers(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (again.kind, again.unk, again.eos) == (tokenizer.kind, tokenizer.unk, tokenizer.eos)
    assert again.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()
    plain = SAMPLE.replace("<eos>", "")  # which `tokenizers` reads as the token
    assert backend.encode(plain).ids == tokenizer.encode(plain).tolist()
    assert backend.decode(backend.encode(plain).ids) == tokenizer.decode(tokenizer.encode(plain))
    assert again.vocab_size == backend.get_vocab_size()


def test_stream_yields_the_text_without_partial_characters(tokenizer):
    stream = tokenizer.decode_stream()
    ids = tokenizer.encode(SAMPLE)
    pieces = [stream.step(token) for token in ids]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_stream_continues_after_earlier_tokens():
    tokenizer = train_tokenizer("word", ["the boat went out"])
    the, boat = tokenizer.encode("the boat")
    assert tokenizer.decode_stream().step(boat) == "boat"
    assert tokenizer.decode_stream(after=[the]).step(boat) == " boat"


@pytest.mark.parametrize("kind", ["char", *EXACT])
def test_literal_special_tokens_are_text(kind):
    tokenizer = train_tokenizer(kind, ["<eos>ab" * 20], 300)
    assert tokenizer.eos not in tokenizer.encode("<eos>")
    assert tokenizer.decode(tokenizer.encode("<eos>a")) == "<eos>a"


def test_unknown_characters_become_unk_and_are_listed():
    tokenizer = train_tokenizer("char", ["abc"])
    assert tokenizer.encode("azb").tolist()[1] == tokenizer.unk
    assert tokenizer.unknown_in("a日z日") == ["日", "z"]
    assert train_tokenizer("byte", []).unknown_in("日") == []
    assert train_tokenizer("word", ["a boat"]).unknown_in("a ship and a boat") == ["ship", "and"]


def test_half_of_a_character_is_read_as_a_question_mark(tokenizer):
    for half in ("\udcff", "\ud800"):
        assert tokenizer.encode(f"a{half} b").tolist() == tokenizer.encode("a? b").tolist()
        assert tokenizer.unknown_in(f"a{half} b") == tokenizer.unknown_in("a? b")
        known = tokenizer.encode(f"a{half} b", skip_unknown=True)
        assert known.tolist() == tokenizer.encode("a? b", skip_unknown=True).tolist()


def test_message_names_at_most_eight_unknown_characters():
    tokenizer = train_tokenizer("char", ["abc"])
    assert describe_unknown(tokenizer, "cab") == ""
    assert describe_unknown(tokenizer, "a日z日") == "'日', 'z'"
    assert describe_unknown(tokenizer, "12345678") == "'1', '2', '3', '4', '5', '6', '7', '8'"
    assert describe_unknown(tokenizer, "123456789") == "'1', '2', '3', '4', '5', '6', '7', '8' …"


def test_words_keep_their_line_breaks_where_eos_is_a_special_token():
    """As in a tokenizer.json that transformers has saved."""
    tokenizer = train_tokenizer("word", ["the sea\nwas calm"])
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens(["<unk>", "<eos>"])
    again, ids = Tokenizer(backend), tokenizer.encode("the ship\nwas calm")
    assert again.kind == "word"
    assert again.decode(ids) == "the <unk>\nwas calm"
    stream = again.decode_stream()
    assert "".join(map(stream.step, ids)) == "the <unk>\nwas calm"


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": 1}'])
def test_broken_file_is_an_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_the_tokenizer_of_a_model_folder_is_the_same(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_files(tokenizer)["tokenizer.json"], encoding="utf-8")
    assert Tokenizer.load(tmp_path / "tokenizer.json").backend.to_str() == tokenizer.backend.to_str()
