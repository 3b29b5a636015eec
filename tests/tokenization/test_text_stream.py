"""Text decoded token by token: no partial characters, no unnecessary delay, and the same text as decoding
everything at once, whatever bytes a model generates."""

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer as Backend, decoders, models

from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer

TEXT = ["the boat went out 中文 العربية हिन्दी \U0001f468\u200d\U0001f469 \ufffd\n" * 20]
BYTE_LEVEL = {kind: train_tokenizer(kind, TEXT, 300) for kind in ("byte", "bpe", "unigram")}
CHAR = train_tokenizer("char", TEXT)


def streamed(tokenizer, ids):
    stream = tokenizer.decode_stream()
    return [stream.step(token) for token in ids]


@pytest.mark.parametrize("kind", BYTE_LEVEL)
@given(ids=st.lists(st.integers(0, 256), max_size=40))
@settings(deadline=None)
def test_streamed_text_equals_decoded_text_for_any_tokens(kind, ids):
    tokenizer = BYTE_LEVEL[kind]
    ids = [token for token in ids if token != tokenizer.end]
    pieces = streamed(tokenizer, [*ids, tokenizer.end])  # ends an incomplete character
    assert "".join(pieces) == tokenizer.decode(ids)
    for count in range(len(ids)):  # no text is ever revised
        assert tokenizer.decode(ids[:count]).startswith("".join(pieces[:count]))


@given(content=st.binary(max_size=60))
def test_at_most_one_character_is_held_back(content):
    waiting = 0
    for piece in streamed(BYTE_LEVEL["byte"], content):
        waiting = 0 if piece else waiting + 1
        assert waiting <= 3


def test_replacement_character_in_the_text_is_text():
    assert streamed(CHAR, CHAR.encode("a\ufffd\ufffd")) == ["a", "\ufffd", "\ufffd"]
    assert "".join(streamed(BYTE_LEVEL["byte"], "a\ufffd\ufffd".encode())) == "a\ufffd\ufffd"


def test_incomplete_last_character_is_not_shown():
    assert "".join(streamed(BYTE_LEVEL["byte"], "中文".encode()[:-1])) == "中"


@pytest.fixture(scope="module")
def external():
    """A tokenizer like Llama's: words, with bytes as a fallback."""
    byte_tokens = {f"<0x{byte:02X}>": byte for byte in range(256)}
    words = {"<unk>": 256, "<eos>": 257, "▁the": 258, "▁boat": 259, "s": 260}
    backend = Backend(models.BPE({**byte_tokens, **words}, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def test_external_tokenizer_streams_its_text(external):
    ids = [258, 259, 260, *"中".encode(), 259]
    pieces = streamed(external, ids)
    assert pieces == ["the", " boat", "s", "", "", "中", " boat"]
    assert "".join(pieces) == external.decode(ids)


@given(ids=st.lists(st.integers(0, 260).filter(lambda token: token != 257), max_size=40))
@settings(deadline=None)
def test_external_tokenizer_recovers_from_invalid_bytes(external, ids):
    assert "".join(streamed(external, [*ids, 258, 259, 260])).endswith("boats")


def test_windows_line_ends_are_normalized_unless_the_vocabulary_has_them():
    assert CHAR.encode("the\r\nboat").tolist() == CHAR.encode("the\nboat").tolist()
    assert CHAR.unknown_in("the\r\nboat") == []
    assert CHAR.unknown_in("the\rboat") == ["\r"]
    with_cr = train_tokenizer("char", ["a\r\n"])
    assert with_cr.decode(with_cr.encode("a\r\n")) == "a\r\n"


def test_names_of_tokens_without_whole_characters_are_their_bytes(external):
    byte = BYTE_LEVEL["byte"]
    names = [byte.token_name(token) for token in (0x41, 0x20, 0x0A, 0xE4, 0x80, 256)]
    assert names == ["A", " ", "\n", "bytes:\\xe4", "bytes:\\x80", "<eos>"]
    pieces = train_tokenizer("bpe", ["\\ 中 " * 50 + "\\ 乁 " * 50], 300)
    partial = [pieces.token_name(token) for token in range(pieces.vocab_size)]
    assert "bytes: \\xe4" in partial and " 中" in partial
    names = [external.token_name(token) for token in (0xE4, 0x41, 258, 257)]
    assert names == ["bytes:\\xe4", "A", "the", "<eos>"]


def test_the_offset_of_a_token_is_that_of_its_character(external):
    stream = BYTE_LEVEL["byte"].decode_stream("é".encode()[:1])  # completes a character of the context
    offsets = []
    for token in [*"é中".encode()[1:], 0xE4, 0x41, 0xE4, 256]:
        stream.step(token)
        offsets.append(stream.offset)
    # The incomplete 0xE4 becomes a character of its own.
    assert offsets == [0, 1, 1, 1, 2, 3, 4, 5] and stream.length == 5
    stream, offsets = external.decode_stream(), []
    for token in [258, 259, *"中".encode(), 260]:
        stream.step(token)
        offsets.append(stream.offset)
    assert offsets == [0, 4, 8, 8, 8, 9]
