"""How a text is continued: limits, seeds, steps, and that nothing is computed unasked."""

import itertools
import logging

import pytest

import lm
from app.continuation import (
    DEFAULT_LENGTH,
    MAX_CHARACTERS,
    MAX_LENGTH,
    MAX_SEED,
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


def settings(**changed):
    return {"max_new_tokens": 100, "top_p": 0.9} | changed


def draft(model, text):
    return Draft(model).with_text(text)


def test_the_text_grows_from_the_prompt_to_what_the_model_streams(model):
    one, seen = draft(model, "The sea "), []
    for _ in continue_drafts([one], [1], **settings(max_new_tokens=2000)):
        seen.append(one.text)
    written = "".join(p.text for p in model.stream("The sea ", seed=1, **settings(max_new_tokens=2000)))
    assert len(seen) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert seen[0].startswith("The sea ") and seen[-1] == "The sea " + written


def test_candidates_are_what_each_seed_writes_alone(model):
    start = draft(model, "The sea ")
    several = [start.fork() for _ in range(3)]
    *_, last = continue_drafts(several, [5, 6, 7], **settings())
    alone = [start.fork() for _ in range(3)]
    for one, seed in zip(alone, [5, 6, 7], strict=True):
        list(continue_drafts([one], [seed], **settings()))
    assert [one.text for one in several] == [one.text for one in alone]
    assert len({one.text for one in several}) == 3
    assert last.complete and last.tokens == 300 and not last.ended and last.tokens_per_second > 0
    assert start.text == "The sea "


def test_closing_ends_the_computation_at_once(model, caplog):
    caplog.set_level(logging.INFO, "app")
    one = draft(model, "")
    steps = continue_drafts([one], [1], **settings(max_new_tokens=MAX_LENGTH))
    next(steps), next(steps)
    before = len(one.text)
    steps.close()
    assert 1 < before == len(one.text) < MAX_LENGTH
    assert f"{one.written} tokens" in caplog.text and "stopped" in caplog.text


def test_a_seed_that_is_empty_or_minus_one_is_random():
    assert len({checked_seed(None) for _ in range(8)} | {checked_seed(-1) for _ in range(8)}) == 16
    assert checked_seed(0) == 0 and checked_seed(MAX_SEED) == MAX_SEED


@pytest.mark.parametrize("seed", [-2, MAX_SEED + 1])
def test_other_seeds_are_refused(seed):
    with pytest.raises(UserError, match="seed"):
        checked_seed(seed)


@pytest.mark.parametrize("length", [0, -5, MAX_LENGTH + 1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(UserError, match="from 1 to 20,000"):
        checked_length(length)


def test_an_empty_length_is_the_usual_one():
    assert checked_length(None) == DEFAULT_LENGTH
    assert checked_length(MAX_LENGTH) == MAX_LENGTH


def test_a_text_that_is_too_long_is_refused():
    assert checked_text("x" * MAX_CHARACTERS)
    with pytest.raises(UserError, match=rf"{MAX_CHARACTERS + 1:,} characters.*{MAX_CHARACTERS:,}"):
        checked_text("x" * (MAX_CHARACTERS + 1))


def test_a_model_that_reads_right_to_left_is_refused_in_a_line():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    network = RecurrentLM(ModelConfig(hidden_size=4, direction="backward"), tokenizer.vocab_size)
    with pytest.raises(UserError, match="reads right to left"):
        Draft(LanguageModel(network, tokenizer))
