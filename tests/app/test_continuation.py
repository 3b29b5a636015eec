"""Continuing drafts: limits, seeds, progress, and that closing stops the computation."""

import itertools
import logging

import pytest

import lm
from app.continuation import (
    DEFAULT_LENGTH,
    MAX_CHARACTERS,
    MAX_LENGTH,
    MAX_SEED,
    MAX_STORY,
    checked_length,
    checked_seed,
    checked_text,
    continue_drafts,
)
from app.draft import Draft
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def model(trained_run):
    return lm.load(trained_run, device="cpu")


def settings(**changes):
    return {"max_new_tokens": 100, "top_p": 0.9} | changes


def make_draft(model, text):
    return Draft(model).with_text(text)


@pytest.mark.slow
def test_the_text_grows_from_the_prompt_to_what_the_model_streams(model):
    draft, seen = make_draft(model, "The sea "), []
    for _ in continue_drafts([draft], [1], **settings(max_new_tokens=2000)):
        seen.append(draft.text)
    generated = "".join(p.text for p in model.stream("The sea ", seed=1, **settings(max_new_tokens=2000)))
    assert len(seen) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert seen[0].startswith("The sea ") and seen[-1] == "The sea " + generated


def test_candidates_equal_single_continuations_with_their_seeds(model):
    start = make_draft(model, "The sea ")
    together = [start.fork() for _ in range(3)]
    *_, last = continue_drafts(together, [5, 6, 7], **settings())
    alone = [start.fork() for _ in range(3)]
    for draft, seed in zip(alone, [5, 6, 7], strict=True):
        list(continue_drafts([draft], [seed], **settings()))
    assert [draft.text for draft in together] == [draft.text for draft in alone]
    assert len({draft.text for draft in together}) == 3
    assert last.complete and last.tokens == 300 and not last.ended and last.tokens_per_second > 0
    assert start.text == "The sea "


def test_closing_stops_the_computation(model, caplog):
    caplog.set_level(logging.INFO, "app")
    draft = make_draft(model, "")
    steps = continue_drafts([draft], [1], **settings(max_new_tokens=MAX_LENGTH))
    next(steps), next(steps)
    before = len(draft.text)
    steps.close()
    assert 1 < before == len(draft.text) < MAX_LENGTH
    assert f"{len(draft.session)} tokens" in caplog.text and "stopped" in caplog.text


def test_an_empty_seed_and_minus_one_are_random():
    assert len({checked_seed(None) for _ in range(8)} | {checked_seed(-1) for _ in range(8)}) == 16
    assert checked_seed(0) == 0 and checked_seed(MAX_SEED) == MAX_SEED


@pytest.mark.parametrize("seed", [-2, MAX_SEED + 1])
def test_seeds_out_of_range_are_rejected(seed):
    with pytest.raises(UserError, match="seed"):
        checked_seed(seed)


@pytest.mark.parametrize("length", [0, -5, MAX_LENGTH + 1])
def test_lengths_out_of_range_are_rejected(length):
    with pytest.raises(UserError, match=f"between 1 and 20,000 tokens, got {length:,}"):
        checked_length(length)


def test_an_empty_length_is_the_default():
    assert checked_length(None) == DEFAULT_LENGTH
    assert checked_length(MAX_LENGTH) == MAX_LENGTH


def test_long_texts_are_rejected():
    assert checked_text("x" * MAX_CHARACTERS)
    with pytest.raises(UserError, match=rf"{MAX_CHARACTERS + 1:,} characters.*{MAX_CHARACTERS:,}"):
        checked_text("x" * (MAX_CHARACTERS + 1))
    assert checked_text("x" * MAX_STORY, MAX_STORY)


def test_a_backward_model_is_rejected():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    network = RecurrentLM(ModelConfig(hidden_size=4, direction="backward"), tokenizer.vocab_size)
    with pytest.raises(UserError, match="reads right to left"):
        Draft(LanguageModel(network, tokenizer))
