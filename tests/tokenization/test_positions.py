"""Every token and every word is at its reported position."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer as Backend,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from lm.tokenization.documents import SEPARATOR
from lm.tokenization.positions import byte_spans, positions, token_starts, words_in, words_of_tokens
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS, train_tokenizer

SAMPLE = "the sea was calm.\n\tnaïve  中文　😀 été\x85 the\xa0boat <eos> a\\n\n" * 30
DOCUMENTS = st.lists(
    st.text("the ab中é😀 \n\t\u3000\xa0\x1c\\<", min_size=1, max_size=30), min_size=1, max_size=4
)


def lowercase_wordpiece():
    """An external tokenizer that changes the text and marks the pieces that continue a word."""
    pieces = ["<unk>", "<eos>", *"theab", *(f"##{c}" for c in "theab"), "the", "中", "e", "##e", "<", "\\"]
    backend = Backend(
        models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="<unk>")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend)


def byte_level(prefix, normalizer=None, added=()):
    """An external byte-level tokenizer that reports its tokens without the spaces around them."""
    backend = train_tokenizer("bpe", iter([SAMPLE]), 300).backend
    if normalizer:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.post_processor = processors.ByteLevel(add_prefix_space=prefix, trim_offsets=True)
    backend.add_tokens([AddedToken(token, normalized=False) for token in added])
    return Tokenizer(backend)


# As GPT-2's with a space before a text, and as that of GPT-NeoX, with tokens of several spaces.
TRIMMED = {
    "prefix": byte_level(prefix=True),
    "composed": byte_level(prefix=False, normalizer=normalizers.NFC(), added=["  ", "    "]),
}
DECOMPOSED = st.lists(
    st.text("the a  \n\t\u3000\xa0\x1céqe\u0301\u0323\u1112\u1161\u11ab", min_size=1, max_size=20),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module", params=[*KINDS, "external"])
def tokenizer(request):
    kind = request.param
    return lowercase_wordpiece() if kind == "external" else train_tokenizer(kind, iter([SAMPLE]), 400)


def joined(documents):
    return SEPARATOR.join(document.encode() for document in documents)


def test_the_ends_of_an_external_tokenizer_are_those_it_reports():
    tokenizer, text = lowercase_wordpiece(), "the  b\na\tthea"
    spans = list(zip(*byte_spans(tokenizer, text.encode(), tokenizer.encode(text)), strict=True))
    assert spans == tokenizer.backend.encode(text).offsets == [(0, 3), (5, 6), (7, 8), (9, 12), (12, 13)]


@pytest.mark.slow
@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=60)
def test_tokens_start_and_end_with_their_text(tokenizer, documents):
    text = joined(documents)
    tokens = tokenizer.encode_bytes(text)
    starts, ends = byte_spans(tokenizer, text, tokens)
    assert len(starts) == len(ends) == len(tokens)
    assert (np.diff(starts) >= 0).all() and (starts <= ends).all() and (ends <= len(text)).all()
    if tokenizer.kind in ("word", "wordpiece"):  # they skip whitespace
        parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        assert all(part == part.strip() or part in (b"\n", SEPARATOR) for part in parts)
    else:
        assert ends.tolist() == [*starts[1:], len(text)]
    for token, start in zip(tokens.tolist(), starts.tolist(), strict=True):
        here = text[start:]
        if token == tokenizer.eos:
            assert here.startswith((SEPARATOR, b"\n")) or here.startswith(b"<eos>")
        elif tokenizer.kind in ("word", "wordpiece"):
            name = tokenizer.backend.id_to_token(token).removeprefix("##")
            # The external one drops accents and control characters, so compare first letters.
            first = here.decode("utf-8", "replace")[0].replace("é", "e")
            assert name == "<unk>" or name[0].replace("é", "e") == first
        elif token != tokenizer.unk:
            assert here.startswith(tokenizer.bytes_of(token))


def owners(starts, size, words):
    """The word of each token by definition, and whether it is whitespace."""
    bounds = [*starts, size]
    for start, end in pairwise(bounds):
        covering = [
            number
            for number, (first, last) in enumerate(zip(words.starts, words.ends, strict=True))
            if first < max(end, start + 1) and last > start
        ]
        yield (covering or [np.count_nonzero(words.starts < start) - 1])[0], not covering


@pytest.mark.parametrize("name", TRIMMED)
@given(documents=DECOMPOSED)
@settings(deadline=None, max_examples=60)
def test_spaces_belong_to_the_tokens_that_are_reported_without_them(name, documents):
    tokenizer, text = TRIMMED[name], joined(documents)
    tokens = tokenizer.encode_bytes(text)
    starts, ends = byte_spans(tokenizer, text, tokens)
    assert (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all()
    assert (starts < ends).all() and (ends <= len(text)).all()
    inside = np.zeros(len(text), bool)
    for start, end in zip(starts, ends, strict=True):
        inside[start:end] = True
    assert inside.all()
    # The bytes of the tokens are those of the text after normalization, which has the same words, and of the
    # spaces put before the documents.
    read = [unicodedata.normalize("NFC", d) if name == "composed" else d for d in documents]
    written = [f" {d}" if name == "prefix" and not d.startswith(" ") else d for d in read]
    parts = [SEPARATOR if token == tokenizer.eos else tokenizer.bytes_of(token) for token in tokens.tolist()]
    assert b"".join(parts) == joined(written)
    exact = np.cumsum([0, *map(len, parts)])[:-1]
    document_starts = np.cumsum([0, *(len(d.encode()) + 1 for d in written)])[:-1]
    inserted = document_starts[[len(w) > len(r) for w, r in zip(written, read, strict=True)]]
    exact -= np.searchsorted(inserted, exact)
    expected = list(owners(exact.tolist(), len(joined(read)), words_in(joined(read))))
    found = words_of_tokens(starts, len(text), words_in(text))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_a_token_ends_after_the_marks_of_its_character():
    text = "cafe\u0301 \u1112\u1161\u11ab\uff76\uff9e q\u0323"
    for normalizer in (normalizers.NFC(), normalizers.NFKC(), normalizers.BertNormalizer()):
        tokenizer = byte_level(prefix=False, normalizer=normalizer)
        starts, ends = byte_spans(tokenizer, text.encode(), tokenizer.encode(text))
        borders = {len(text[:index].encode()) for index in (3, 5, 6, 9, 11, 12, 14)}
        assert borders <= {*ends.tolist()}
        assert set(starts.tolist()) - {0} <= set(ends.tolist())  # nothing is between two tokens


def test_an_inserted_token_has_the_position_of_a_character():
    backend = Backend(models.BPE({"<eos>": 0, "x": 1, "é": 2, "a": 3}, []))
    backend.normalizer = normalizers.Replace(Regex("^|$"), "x")
    tokenizer, text = Tokenizer(backend), joined(["éa", "é"])
    spans = byte_spans(tokenizer, text, tokenizer.encode_bytes(text))
    found = list(zip(*(column.tolist() for column in spans), strict=True))
    assert found == [(0, 2), (0, 2), (2, 3), (2, 3), (3, 4), (4, 6), (4, 6), (4, 6)]


def test_a_windows_line_end_may_be_a_single_token():
    text = "a\r\n\r\nthe\rb中\r\n"
    without, given_text = train_tokenizer("char", iter([SAMPLE])), text.encode()
    tokens = without.encode(text)
    assert token_starts(without, given_text, tokens).tolist() == [0, 1, 3, 5, 6, 7, 8, 9, 10, 13]
    known = train_tokenizer("char", iter([SAMPLE + "\r"]))
    starts = token_starts(known, given_text, known.encode(text))
    assert starts.tolist() == [*range(11), 13, 14]


@given(documents=DOCUMENTS)
@settings(deadline=None)
def test_words_are_those_of_str_split_at_their_line_and_column(documents):
    text = joined(documents)
    words = words_in(text)
    assert words.texts == [word for document in documents for word in document.split()]
    found = positions(text, words.starts)
    for word, document, line, column, offset in zip(
        words.texts, found.document, found.line, found.column, found.offset, strict=True
    ):
        whole = documents[document - 1]
        assert whole[offset:].startswith(word)
        assert whole.split("\n")[line - 1][column - 1 :].startswith(word)


@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=60)
def test_token_belongs_to_the_word_of_its_first_character_that_is_not_whitespace(tokenizer, documents):
    text = joined(documents)
    words = words_in(text)
    starts = token_starts(tokenizer, text, tokenizer.encode_bytes(text))
    found = words_of_tokens(starts, len(text), words)
    expected = list(owners(starts.tolist(), len(text), words))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_bytes_inside_a_character_have_its_position():
    text = "a中\n\nb".encode() + SEPARATOR + b"c"
    found = positions(text, np.arange(len(text)))
    assert found.offset.tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 0]
    assert found.line.tolist() == [1, 1, 1, 1, 1, 2, 3, 3, 1]
    assert found.column.tolist() == [1, 2, 2, 2, 3, 1, 1, 2, 1]
    assert found.document.tolist() == [1] * 8 + [2]
