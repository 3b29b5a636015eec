"""Text that arrives token by token: never half a character, never later than it must, and in sum the
same as decoding all at once, whatever bytes a model makes up."""

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer as Backend, decoders, models

from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer

TEXT = ["the boat went out 中文 العربية हिन्दी \U0001f468\u200d\U0001f469 \ufffd\n" * 20]
OF_BYTES = {kind: train_tokenizer(kind, TEXT, 300) for kind in ("byte", "bpe", "unigram")}
CHAR = train_tokenizer("char", TEXT)


def streamed(tokenizer, ids):
    stream = tokenizer.decode_stream()
    return [stream.step(token) for token in ids]


@pytest.mark.parametrize("kind", OF_BYTES)
@given(ids=st.lists(st.integers(0, 256), max_size=40))
@settings(deadline=None)
def test_any_tokens_at_all_stream_as_they_decode(kind, ids):
    tokenizer = OF_BYTES[kind]
    ids = [token for token in ids if token != tokenizer.end]
    pieces = streamed(tokenizer, [*ids, tokenizer.end])  # which ends what was begun
    assert "".join(pieces) == tokenizer.decode(ids)
    for so_far in range(len(ids)):  # nothing shown has to be taken back
        assert tokenizer.decode(ids[:so_far]).startswith("".join(pieces[:so_far]))


@given(content=st.binary(max_size=60))
def test_no_more_than_the_bytes_of_one_character_are_held_back(content):
    waiting = 0
    for piece in streamed(OF_BYTES["byte"], content):
        waiting = 0 if piece else waiting + 1
        assert waiting <= 3


def test_a_replacement_character_in_the_text_is_text():
    assert streamed(CHAR, CHAR.encode("a\ufffd\ufffd")) == ["a", "\ufffd", "\ufffd"]
    assert "".join(streamed(OF_BYTES["byte"], "a\ufffd\ufffd".encode())) == "a\ufffd\ufffd"


def test_a_character_that_the_last_token_leaves_half_done_is_not_shown():
    assert "".join(streamed(OF_BYTES["byte"], "中文".encode()[:-1])) == "中"


@pytest.fixture(scope="module")
def foreign():
    """A tokenizer of the make of Llama's: words, and bytes for what they lack."""
    of_bytes = {f"<0x{byte:02X}>": byte for byte in range(256)}
    words = {"<unk>": 256, "<eos>": 257, "▁the": 258, "▁boat": 259, "s": 260}
    backend = Backend(models.BPE({**of_bytes, **words}, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def test_tokenizers_of_others_stream_their_text(foreign):
    ids = [258, 259, 260, *"中".encode(), 259]
    pieces = streamed(foreign, ids)
    assert pieces == ["the", " boat", "s", "", "", "中", " boat"]
    assert "".join(pieces) == foreign.decode(ids)


@given(ids=st.lists(st.integers(0, 260).filter(lambda token: token != 257), max_size=40))
@settings(deadline=None)
def test_tokenizers_of_others_stream_on_after_bytes_that_are_no_character(foreign, ids):
    assert "".join(streamed(foreign, [*ids, 258, 259, 260])).endswith("boats")


def test_line_ends_of_windows_are_line_ends_unless_the_text_had_them():
    assert CHAR.encode("the\r\nboat").tolist() == CHAR.encode("the\nboat").tolist()
    assert CHAR.unknown_in("the\r\nboat") == []
    assert CHAR.unknown_in("the\rboat") == ["\r"]
    knows = train_tokenizer("char", ["a\r\n"])
    assert knows.decode(knows.encode("a\r\n")) == "a\r\n"
