"""Scores of a LanguageModel, and the texts and token ids that it takes."""

import math

import numpy as np
import pytest
import torch

import lm
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.language_model.conftest import streamed


def test_scores(model):
    scores = model.score("the sea")
    assert [s.token for s in scores] == model.tokenizer.encode("the sea").tolist()
    for score in scores:
        assert score.logprob < 0
        assert 1 <= score.rank <= model.tokenizer.vocab_size
        assert 0 < score.entropy <= math.log(model.tokenizer.vocab_size) + 1e-6
    assert model.score("") == []


def test_logprobs_of_a_stream_equal_the_scores_of_its_text(model):
    pieces = list(model.stream("", max_new_tokens=40, seed=1))
    text = model.tokenizer.decode([p.token for p in pieces])
    if model.tokenizer.encode(text).tolist() == [p.token for p in pieces]:
        scores = model.score(text)
        assert [s.logprob for s in scores] == pytest.approx([p.logprob for p in pieces], abs=1e-4)


def test_unknown_characters():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    model = LanguageModel(RecurrentLM(ModelConfig(hidden_size=4), tokenizer.vocab_size), tokenizer)
    with pytest.raises(lm.UserError, match="does not know '日'"):
        streamed(model, "a日", unknown="error")
    assert streamed(model, "a日b", unknown="skip", seed=1) == streamed(model, "ab", seed=1)
    assert [s.token for s in model.score("a日")][1] == tokenizer.unk
    assert "<unk>" not in streamed(model, "日", max_new_tokens=500, temperature=3.0, seed=1)


def test_token_ids_are_a_text(model):
    ids = model.encode("the naïve 中")
    assert model.score(ids) == model.score("the naïve 中") == model.score(torch.tensor(ids).numpy())
    assert streamed(model, ids, seed=3) == streamed(model, "the naïve 中", seed=3)
    prompts = ([ids], "the naïve 中", [iter(ids)])
    beams = [model.generate(one, beams=2, max_new_tokens=5) for one in prompts]
    assert beams[0] == beams[1] == beams[2]
    assert model.score(iter(ids)) == model.score(ids)
    for convert in (list, np.array, torch.tensor, iter):
        found = model.generate([convert(ids), convert(ids[:-1])], num_samples=2, max_new_tokens=5, seed=3)
        assert found == model.generate([ids, ids[:-1]], num_samples=2, max_new_tokens=5, seed=3)
    with pytest.raises(UserError, match=f"between 0 and {model.tokenizer.vocab_size - 1}, got -1"):
        model.score([1, -1])
    with pytest.raises(UserError, match=", got a number with hundreds of digits"):
        model.score([1, 10**4000])


@pytest.mark.slow
def test_an_eos_that_ids_start_with_is_the_start_of_the_text(model, backward):
    eos, end = model.tokenizer.eos, backward.tokenizer.eos
    ids, other = model.encode("the sea"), backward.encode("the sea")
    given, *scores = model.score([eos, *ids], alternatives=2)
    assert scores == model.score(ids, alternatives=2)
    assert (given.token, given.logprob, given.rank, given.entropy) == (eos, 0.0, 1, 0.0)
    assert streamed(model, [eos, *ids], seed=3) == streamed(model, ids, seed=3)
    # A model that reads right to left begins at the other end.
    *scores, given = backward.score([*other, end])
    assert scores == backward.score(other) and (given.token, given.logprob) == (end, 0.0)
    # Anywhere else it is a token like any other.
    assert model.score([*ids, eos])[-1].logprob < 0
