"""How a text is continued: limits, seeds, steps, and that nothing is computed unasked."""

import itertools
import logging

import pytest

import lm
from app.writing import (
    LARGEST_SEED,
    LONGEST_CONTINUATION,
    LONGEST_TEXT,
    USUAL_CONTINUATION,
    Past,
    checked_length,
    checked_seed,
    checked_text,
    continuation,
)
from lm.config import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.network import RecurrentLM
from lm.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def model(trained_run):
    return lm.load(trained_run, device="cpu")


def settings(**changed):
    return {"seed": 1, "max_new_tokens": 100, "top_p": 0.9} | changed


def test_the_text_grows_from_the_prompt_to_what_the_model_streams(model):
    steps = [text for text, _ in continuation(model, "The sea ", **settings(max_new_tokens=2000))]
    written = "".join(piece.text for piece in model.stream("The sea ", **settings(max_new_tokens=2000)))
    assert len(steps) > 2
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(steps))
    assert steps[0].startswith("The sea ") and steps[-1] == "The sea " + written


def test_the_line_tells_seed_tokens_and_speed(model):
    *_, (_, line) = continuation(model, "The sea ", **settings(seed=12345, max_new_tokens=50))
    assert line.startswith("seed 12345 · 50 tokens · ") and line.endswith(" tokens/s")


def test_closing_ends_the_computation_at_once(model, monkeypatch, caplog):
    made = []
    stream = model.stream

    def counted(*arguments, **keywords):
        return (made.append(piece) or piece for piece in stream(*arguments, **keywords))

    monkeypatch.setattr(model, "stream", counted)
    caplog.set_level(logging.INFO, "app")
    steps = continuation(model, "", **settings(max_new_tokens=LONGEST_CONTINUATION))
    next(steps), next(steps)
    before = len(made)
    steps.close()
    assert 1 < before == len(made) < LONGEST_CONTINUATION
    assert f"{before} tokens" in caplog.text and "stopped" in caplog.text


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


def test_turns_are_taken_back_one_by_one_and_the_oldest_are_forgotten():
    past = Past()
    for number in range(1000):
        past = past.with_turn(str(number), "", seed=number)
    assert len(past.turns) < 100 and past.turns[-1].before == "999" and past.seed == 999
    assert past.without_last().turns[-1].before == "998"


def test_a_model_that_reads_right_to_left_is_refused_in_a_line():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    network = RecurrentLM(ModelConfig(hidden_size=4, direction="backward"), tokenizer.vocab_size)
    with pytest.raises(UserError, match=r"^this model reads right to left .*generate\.py"):
        next(continuation(LanguageModel(network, tokenizer), "a", **settings()))
