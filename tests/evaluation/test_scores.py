"""Scores: a list that a notebook displays as colored text."""

import copy
import math
import re
from dataclasses import replace
from html import unescape

import pytest
import torch

from lm.config.schema import ModelConfig
from lm.evaluation.scores import Score, Scores
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

TEXT = 'the <b>sea</b> & "a"\nnaïve 中文\x1b'


def make(kind):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(kind, iter([TEXT * 20]), 300)
    return LanguageModel(RecurrentLM(ModelConfig(hidden_size=8, layers=1), tokenizer.vocab_size), tokenizer)


def spans(html):
    return re.findall(r'<span title="([^"]*)"( style="[^"]*")?>([^<]*)</span>', html)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "unigram", "word"])
def test_html_shows_the_text_and_nothing_of_it_as_markup(kind):
    scores = make(kind).score(TEXT)
    html = scores._repr_html_()
    found = spans(html)
    assert re.fullmatch(r"<div style=\"[^\"<]*\">(<span[^<]*</span>)*</div>", html)
    text = unescape("".join(text for _, _, text in found))
    assert text.split() == TEXT.replace("\x1b", "␛").split()
    assert kind == "word" or text == TEXT.replace("\x1b", "␛")
    # A character that several tokens make up has one span, and a line of the tooltip for each.
    assert sum(unescape(title).count(" bits, rank ") for title, _, _ in found) == len(scores)
    assert (len(found) < len(scores)) == (kind in ("byte", "unigram"))


def test_the_color_is_that_of_the_surprisal():
    model = make("char")
    alternatives = (("a", math.log(0.6)), ("b", math.log(0.25)))
    changes = (
        {"logprob": -0.5},
        {"logprob": -2.1, "rank": 3, "alternatives": alternatives},
        {"logprob": -99},
    )
    scores = [replace(score, **change) for score, change in zip(model.score("the"), changes, strict=True)]
    found = spans(Scores(scores, model.tokenizer)._repr_html_())
    assert [style for _, style, _ in found] == [
        "",  # less than one bit
        ' style="background: rgba(234, 88, 12, 0.18)"',  # 3.03 bits
        ' style="background: rgba(234, 88, 12, 0.54)"',
    ]
    assert unescape(found[1][0]) == "'h': 3.03 bits, rank 3; most likely: 'a' 60.0%, 'b' 25.0%"


def test_special_tokens_are_shown_by_their_names():
    model = make("byte")
    eos = model.tokenizer.eos
    html = model.score([*model.encode("a"), eos, *model.encode("ï")[:1]])._repr_html_()
    assert [unescape(text) for _, _, text in spans(html)] == ["a", "<eos>", "\ufffd"]


def test_they_are_a_list():
    model = make("char")
    scores = model.score("the sea")
    assert isinstance(scores, list) and isinstance(scores[0], Score)
    assert scores == list(scores) == model.score("the sea") and list(scores) == scores
    assert isinstance(scores[2:], Scores) and scores[2:] == list(scores)[2:]
    assert "".join(text for _, _, text in spans(scores[4:]._repr_html_())) == "sea"
    assert isinstance(copy.deepcopy(scores), Scores) and copy.deepcopy(scores) == scores


@pytest.mark.slow
def test_a_long_text_is_cut():
    model = make("char")
    html = model.score("a" * 6000)._repr_html_()
    assert len(spans(html)) == 5000 and " … and 1,000 more tokens" in html
