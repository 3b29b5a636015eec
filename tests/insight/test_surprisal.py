"""Surprisals of tokens and words add up to that of the text."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tokenizers import normalizers

import lm
from lm.config.schema import CacheConfig, DynamicConfig, ModelConfig
from lm.console.escaping import unescaped
from lm.errors import UserError
from lm.insight.scored_text import ScoredText, region_table, token_table, two_sided, word_table
from lm.insight.surprisal import entropies, score_text
from lm.insight.surprising import most_surprising
from lm.insight.table_files import table_lines
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.vocabulary import KINDS, train_tokenizer
from tests.tokenization.test_positions import (
    DECOMPOSED,
    DOCUMENTS,
    SAMPLE,
    TRIMMED,
    byte_level,
    joined,
    lowercase_wordpiece,
)


def make(kind, direction="forward", sample=SAMPLE):
    return with_tokenizer(train_tokenizer(kind, iter([sample]), 400), direction)


def with_tokenizer(tokenizer, direction="forward"):
    torch.manual_seed(0)
    config = ModelConfig(cell="gru", layers=1, hidden_size=8, direction=direction)
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return make(request.param)


@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=40)
def test_bits_of_words_and_whitespace_add_up_to_the_text(model, documents):
    text = joined(documents)
    try:
        scored = score_text(model, text)
    except UserError:  # all characters are unknown
        return
    tokens, words = scored.per_token(), scored.per_word()
    total = scored.losses.sum() / math.log(2)
    assert sum(tokens["surprisal"]) == pytest.approx(total)
    first = next((i for i, word in enumerate(tokens["word"]) if word), len(tokens["word"]))
    before = sum(tokens["surprisal"][:first])
    assert before + sum(words["surprisal"]) + sum(words["space"]) == pytest.approx(total)
    assert words["word"] == [w for d in documents for w in d.split()]
    assert scored.metrics.loss.value == pytest.approx(scored.losses.mean())
    if model.tokenizer.kind != "word" and not scored.unknown:
        written = b"".join(map(unescaped, tokens["token"]))
        assert written == text.replace(SEPARATOR, b"<eos>")


@pytest.mark.parametrize("name", TRIMMED)
@given(documents=DECOMPOSED, reset=st.booleans(), cut=st.integers(0, 20))
@settings(deadline=None, max_examples=20)
def test_words_and_regions_have_all_bits_whatever_the_tokenizer_trims(name, documents, reset, cut):
    text = joined(documents)
    scored = score_text(with_tokenizer(TRIMMED[name]), text, reset=reset)
    total = scored.bits.sum()
    words = scored.per_word()
    assert {len(column) for column in words.values()} == {len(scored.words.texts)}
    word, is_space = scored.word_of_token
    before = scored.bits[is_space & (word < 0)].sum()
    assert before + sum(words["surprisal"]) + sum(words["space"]) == pytest.approx(total)
    starts, offset = [], 0
    for document in documents:
        parts = document[:cut].encode(), document.encode()
        starts += sorted({offset, offset + (len(parts[0]) if document[cut:].strip() else 0)})
        offset += len(parts[1]) + 1
    ends_of_documents = scored.bits[scored.tokens == scored.tokenizer.eos].sum()
    regions = region_table({"surprisal": scored}, np.array(starts))["surprisal"]
    assert sum(regions) + ends_of_documents == pytest.approx(total)
    assert len(most_surprising(scored, 100, words=True)) == len(scored.words.texts)
    assert scored.unwritten == 0


def test_decomposed_text_has_the_bits_of_composed_text():
    model = with_tokenizer(byte_level(prefix=False, normalizer=normalizers.NFC()))
    tables = [score_text(model, text).per_word() for text in ("sea\ncalm é ", "sea\ncalm e\u0301 ")]
    assert tables[0]["word"] != tables[1]["word"]
    for name in ("surprisal", "space", "tokens", "line"):
        assert tables[0][name].tolist() == tables[1][name].tolist()


def test_scores_of_several_models_at_once_are_an_error():
    model = make("char")
    scored = score_text(model, "the sea")
    for other in (model.clamped(lm.Clamp(0, 0, 0.5)), model.mixed_with([(make("char"), 0.5)])):
        for score in (lambda other: score_text(other, "the sea"), lambda other: entropies(other, scored)):
            with pytest.raises(UserError, match="can only generate, not score a text"):
                score(other)


def test_scores_of_different_texts_are_not_combined():
    model = make("char")
    first = score_text(model, "the sea")
    for text in ("the set", "the seas"):
        other = score_text(model, text)
        for combine in (
            two_sided,
            lambda a, b: token_table({"a": a, "b": b}),
            lambda a, b: word_table({"a": a, "b": b}),
        ):
            with pytest.raises(UserError, match="those of the same text in the same tokens"):
                combine(first, other)


def test_the_precision_has_a_name():
    model = make("char")
    found = score_text(model, "the sea", precision="bf16")
    assert found.losses == pytest.approx(score_text(model, "the sea").losses, abs=0.05)
    with pytest.raises(UserError, match="must be one of auto, fp32"):
        score_text(model, "the sea", precision="half")


def test_metrics_agree_with_the_scores_of_the_model(model):
    text = "the sea was calm.\nthe boat"
    scored = score_text(model, text)
    logprobs = [score.logprob for score in model.score(text)]
    assert scored.losses == pytest.approx([-p for p in logprobs], abs=1e-4)
    found = scored.metrics
    assert found.bits_per_character.value == pytest.approx(-sum(logprobs) / len(text) / math.log(2))


def test_a_word_sums_its_characters_and_the_whitespace_after_it():
    scored = score_text(make("char"), "\na bé \n\nthe\n")
    bits, words = scored.bits, scored.per_word()
    assert words["word"] == ["a", "bé", "the"]
    assert words["line"].tolist() == [2, 2, 4]
    assert words["column"].tolist() == [1, 3, 1]
    assert words["offset"].tolist() == [1, 3, 8]
    assert words["tokens"].tolist() == [1, 2, 3]
    assert words["surprisal"] == pytest.approx([bits[1], bits[3:5].sum(), bits[8:11].sum()])
    assert words["space"] == pytest.approx([bits[2], bits[5:8].sum(), bits[11]])
    assert scored.per_token()["word"] == ["", "a", "", "bé", "bé", "", "", "", *["the"] * 3, ""]


def test_a_space_inside_a_token_counts_toward_its_word():
    scored = score_text(make("bpe"), "the sea the")
    assert scored.per_token()["token"] == ["the", r"\ssea", r"\sthe"]
    assert scored.per_word()["surprisal"] == pytest.approx(scored.bits)
    assert scored.per_word()["space"].tolist() == [0, 0, 0]


def test_table_lines_have_a_row_per_token_and_a_field_per_column():
    (scored,) = lm.score_texts(make("byte"), ['a\t"b"\\ \r中\n'])  # with its line breaks
    lines = list(table_lines(scored.per_token()))
    assert lines[0] == "token\tword\tdocument\tline\tcolumn\toffset\tsurprisal\tunknown\tend\tword_number\n"
    rows = [line.removesuffix("\n").split("\t") for line in lines[1:]]
    shown = ["a", r"\t", '"', "b", '"', r"\\", r"\s", r"\r", r"\xe4", r"\xb8", r"\xad", r"\n"]
    assert [row[0] for row in rows] == shown
    assert [row[1] for row in rows] == ["a", "", *[r'"b"\\'] * 4, "", "", *["中"] * 3, ""]
    assert [float(row[6]) for row in rows] == pytest.approx(scored.bits, abs=1e-5)


def test_two_sided_scores_are_the_mean_of_both_directions():
    text = "the sea was calm.\n"
    forward, backward = (score_text(make("char", d), text) for d in ("forward", "backward"))
    mean = two_sided(forward, backward)
    assert mean.bits == pytest.approx((forward.bits + backward.bits) / 2)
    table = word_table({"forward": forward, "backward": backward, "mean": mean})
    names = ["forward", "forward_space", "backward", "backward_space", "mean", "mean_space"]
    assert list(table)[6:] == [*names, "unknown", "end", "word_number"]
    assert table["mean"] == pytest.approx((table["forward"] + table["backward"]) / 2)
    assert table["backward"][0] == pytest.approx(backward.bits[:3].sum())


def test_adapting_while_reading_changes_the_scores_but_not_the_model():
    model, text = make("char"), "the sea was calm. " * 20
    plain = score_text(model, text)
    learned = score_text(model, text, dynamic=DynamicConfig(dynamic_rate=0.01), cache=CacheConfig())
    assert learned.losses.mean() < plain.losses.mean() - 0.1
    assert np.array_equal(score_text(model, text).losses, plain.losses)


def test_with_reset_the_model_adapts_to_each_document_by_itself():
    documents = ["the sea was calm. " * 20, "the boat", "", "the sea"]
    for model in (make("char"), make("char", "backward")):
        adapting = {"dynamic": DynamicConfig(dynamic_rate=0.01), "cache": CacheConfig()}
        scored = score_text(model, joined(documents), reset=True, **adapting)
        each = [score_text(model, document, **adapting).losses for document in documents if document]
        assert np.array_equal(scored.losses, np.concatenate(each))
        assert len(scored.per_word()["word"]) == 84


def test_an_unknown_character_is_unknown_even_if_it_begins_the_name_of_the_unknown_token():
    scored = score_text(make("char", sample="the sea"), "the <unk>")
    assert scored.is_unknown.tolist() == [False] * 4 + [True] * 5


@pytest.mark.parametrize("reset", [True, False])
def test_spaces_before_a_document_are_counted_if_the_word_before_is_left_out(reset):
    text = joined(["the zzz", "     the sea"])
    scored = replace(score_text(make("word"), text, reset=reset), skip_unknown=True)
    bits = scored.bits[~scored.is_unknown].sum()
    assert scored.unknown == 1
    assert scored.metrics.bits_per_character.value == pytest.approx(bits / len("the      the sea"))


@pytest.mark.parametrize("kind", [*KINDS])
def test_the_end_of_a_document_is_not_in_the_next_one(kind):
    scored = score_text(make(kind), joined(["the sea", "     the boat"]))
    (index,) = np.flatnonzero(scored.tokens == scored.tokenizer.eos)
    table = scored.per_token()
    assert (table["document"][index], table["offset"][index], table["end"][index]) == (1, 7, 8)
    assert table["end"][-1] == 13


@pytest.mark.parametrize("reset", [False, True])
def test_whitespace_is_part_of_no_token_of_a_word_model(reset):
    documents = ["the  sea was\n", "calm \u00a0 \n boat ", "é the"]
    scored = score_text(make("word"), joined(documents), reset=reset)
    table = scored.per_token()
    spans = zip(table["document"], table["offset"], table["end"], strict=True)
    texts = [documents[document - 1][begin:end] for document, begin, end in spans]
    words = [text for text in texts if text.strip()]
    assert words == [*documents[0].split(), *documents[1].split(), *documents[2].split()]
    assert set(texts) - set(words) <= {"\n", ""}  # "": a separator


def test_bits_of_whitespace_are_a_float_also_without_whitespace():
    assert score_text(make("word"), "the sea").per_word()["space"].dtype == np.float64


def test_rows_without_words_are_an_error_also_if_the_model_adapts():
    for adapting in ({}, {"dynamic": DynamicConfig()}, {"cache": CacheConfig()}):
        scored = score_text(make("word"), joined([" ", "\t"]), reset=True, **adapting)
        assert len(scored.tokens) == 0
        with pytest.raises(UserError, match="the text is empty"):
            _ = scored.metrics


def test_texts_that_cannot_be_scored():
    with pytest.raises(UserError, match="the text is empty"):
        score_text(make("char"), "")
    with pytest.raises(UserError, match=r"^the text to score must be a str or bytes\.$"):
        score_text(make("char"), None)
    with pytest.raises(UserError, match="knows none of the characters"):
        score_text(make("char"), "ЖЩ Я\n")
    with pytest.raises(UserError, match="knows none of the words"):
        score_text(make("word"), "wholly other\n")
    assert score_text(make("char"), "Жa").unknown == 1
    assert score_text(make("byte"), "ЖЩ").unknown == 0
    for kind in ("char", "byte"):  # line breaks are those of a file that has been read
        assert score_text(make(kind), "a\r\nb\rc").text == b"a\nb\nc"


@pytest.mark.parametrize("kind", KINDS)
@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=40)
def test_whitespace_that_the_tokens_do_not_represent_is_counted(kind, documents):
    text = joined(documents)
    tokenizer = train_tokenizer(kind, iter([SAMPLE]), 400)
    tokens = tokenizer.encode_bytes(text)
    written = text.decode("utf-8", "surrogateescape")
    if kind == "word":  # words with a space between them, on lines
        separator = SEPARATOR.decode("utf-8", "surrogateescape")
        lines = [[line.split() for line in document.split("\n")] for document in written.split(separator)]
        written = separator.join("\n".join(" ".join(words) for words in document) for document in lines)
    expected = len(text) - len(written.encode("utf-8", "surrogateescape"))
    assert ScoredText(tokenizer, text, tokens, np.zeros(len(tokens))).unwritten == expected


def test_only_whitespace_counts_as_whitespace_that_the_tokens_do_not_represent():
    tokenizer = lowercase_wordpiece()  # drops accents and control characters
    for text, expected in (("e\u0301e\u0301 the", 0), ("\x01a  \x01 b", 2)):
        tokens = tokenizer.encode(text)
        assert ScoredText(tokenizer, text.encode(), tokens, np.zeros(len(tokens))).unwritten == expected
