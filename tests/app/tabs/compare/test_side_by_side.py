"""Generations side by side write what each model writes alone, in turns, for as long as they are read."""

import logging
import re

import pytest

from app.tabs.compare.side_by_side import Generation, generate_side_by_side
from lm.errors import UserError
from tests.app.tabs.compare.conftest import untrained


@pytest.mark.slow
def test_each_generation_equals_the_models_stream_with_its_seed_and_settings(boat):
    generations = [Generation(boat, 0.8, 0.9), Generation(boat, 0.3, 1.0)]
    for _ in generate_side_by_side(generations, "The sea ", 5, 200):
        pass
    for generation in generations:
        settings = {"temperature": generation.temperature, "top_p": generation.top_p, "max_new_tokens": 800}
        alone = "".join(p.text for p in boat.stream("The sea ", seed=5, **settings))
        assert generation.text == "The sea " + alone[:200]
        assert generation.tokens == 200 and generation.complete
    assert generations[0].text != generations[1].text


@pytest.mark.slow
def test_all_texts_grow_together_to_one_length_whatever_their_tokens(models):
    generations = [Generation(model, 0.8, 1.0) for model in models.values()]
    updates = generate_side_by_side(generations, "The sea ", 1, 3000)
    seen = [[generation.tokens for generation in generations] for _ in updates]
    assert len(seen) > 3
    assert any(min(tokens) > 0 and tokens == [tokens[0]] * 3 for tokens in seen)  # they take turns
    assert all(3008 <= len(generation.text) < 3040 for generation in generations)
    assert generations[0].tokens == 3000 > generations[2].tokens


def test_nothing_is_computed_unless_it_is_read_and_closing_ends_the_computation(boat, caplog):
    caplog.set_level(logging.INFO, "app.tabs.compare.side_by_side")
    generations = [Generation(boat, 0.8, 1.0), Generation(boat, 1.0, 1.0)]
    updates = generate_side_by_side(generations, "The sea ", 1, 20_000)
    next(updates)
    tokens = [generation.tokens for generation in generations]
    assert all(0 < count < 20_000 for count in tokens)
    updates.close()
    assert [generation.tokens for generation in generations] == tokens
    assert re.fullmatch(rf"{sum(tokens)} tokens in .* side by side: stopped", caplog.messages[-1])
    # Another request is now the only one that the model computes.
    other = boat.stream("The sea ", seed=1)
    assert next(other).text and len(boat.generator.scheduler.running) == 1


@pytest.mark.slow
def test_a_text_that_the_model_ends_is_done_while_the_other_continues(boat):
    generations = [Generation(untrained("char", documents=2), 1.0, 1.0), Generation(boat, 0.8, 1.0)]
    for _ in generate_side_by_side(generations, "The sea ", 1, 2000):
        pass
    assert generations[0].ended and len(generations[0].text) < 2008
    assert not generations[1].ended and len(generations[1].text) == 2008


def test_a_model_that_cannot_generate_is_an_error_before_any_text_changes(boat, taob):
    generation = Generation(boat, 0.8, 1.0)
    with pytest.raises(UserError, match="right to left"):
        next(generate_side_by_side([generation, Generation(taob, 0.8, 1.0)], "The sea ", 1, 10))
    assert generation.tokens == 0 and generation.text == ""
