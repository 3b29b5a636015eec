"""How a text is continued: limits, seeds, steps, and that nothing is computed unasked."""

import itertools
import logging

import pytest

import lm
from app.continuation import (
    LARGEST_SEED,
    LONGEST_CONTINUATION,
    LONGEST_TEXT,
    USUAL_CONTINUATION,
    checked_length,
    checked_seed,
    checked_text,
    continued,
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
    return Draft(model).followed(text)


def test_the_text_grows_from_the_prompt_to_what_the_model_streams(model):
    one, seen = draft(model, "The sea "), []
    for _ in continued([one], [1], **settings(max_new_tokens=2000)):
        seen.append(one.text)
    written = "".join(p.text for p in model.stream("The sea ", seed=1, **settings(max_new_tokens=2000)))
    assert len(seen) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert seen[0].startswith("The sea ") and seen[-1] == "The sea " + written


def test_candidates_are_what_each_seed_writes_alone(model):
    start = draft(model, "The sea ")
    several = [start.fork() for _ in range(3)]
    *_, last = continued(several, [5, 6, 7], **settings())
    alone = [start.fork() for _ in range(3)]
    for one, seed in zip(alone, [5, 6, 7], strict=True):
        list(continued([one], [seed], **settings()))
    assert [one.text for one in several] == [one.text for one in alone]
    assert len({one.text for one in several}) == 3
    assert last.complete and last.tokens == 300 and not last.ended and last.tokens_per_second > 0
    assert start.text == "The sea "


def test_closing_ends_the_computation_at_once(model, caplog):
    caplog.set_level(logging.INFO, "app")
    one = draft(model, "")
    steps = continued([one], [1], **settings(max_new_tokens=LONGEST_CONTINUATION))
    next(steps), next(steps)
    before = len(one.text)
    steps.close()
    assert 1 < before == len(one.text) < LONGEST_CONTINUATION
    assert f"{one.written} tokens" in caplog.text and "stopped" in caplog.text


def test_a_seed_that_is_empty_or_minus_one_is_random():
    assert len({checked_seed(None) for _ in range(8)} | {checked_seed(-1) for _ in range(8)}) == 16
    assert checked_seed(0) == 0 and checked_seed(LARGEST_SEED) == LARGEST_SEED


@pytest.mark.parametrize("seed", [-2, LARGEST_SEED + 1])
def test_other_seeds_are_refused(seed):
    with pytest.raises(UserError, match="seed"):
        checked_seed(seed)


@pytest.mark.parametrize("length", [0, -5, LONGEST_CONTINUATION + 1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(UserError, match="from 1 to 20,000"):
        checked_length(length)


def test_an_empty_length_is_the_usual_one():
    assert checked_length(None) == USUAL_CONTINUATION
    assert checked_length(LONGEST_CONTINUATION) == LONGEST_CONTINUATION


def test_a_text_that_is_too_long_is_refused():
    assert checked_text("x" * LONGEST_TEXT)
    with pytest.raises(UserError, match=rf"{LONGEST_TEXT + 1:,} characters.*{LONGEST_TEXT:,}"):
        checked_text("x" * (LONGEST_TEXT + 1))


def test_a_model_that_reads_right_to_left_is_refused_in_a_line():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    network = RecurrentLM(ModelConfig(hidden_size=4, direction="backward"), tokenizer.vocab_size)
    with pytest.raises(UserError, match="reads right to left"):
        Draft(LanguageModel(network, tokenizer))
