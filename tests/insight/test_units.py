"""Units that track a property are found, and chance fits do not score well."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.errors import UserError
from lm.insight import units
from lm.insight.properties import PROPERTIES, matching
from lm.insight.trace import trace_text
from lm.insight.units import best_threshold, find_units, rank_properties, rank_scores
from lm.language_model import load
from tests.conftest import some_text
from tests.insight.networks import make

COLUMNS = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 4)), min_size=2, max_size=20
)


def by_pairs(values, target):
    """2 · AUC - 1 from all pairs of a value with the property and one without; ties count half."""
    signs = np.sign(values[target][:, None] - values[~target][None])
    return signs.mean()


def mean_ranks(values):
    return np.array([(values < value).sum() + (values == value).sum() / 2 for value in values])


@given(COLUMNS)
@settings(deadline=None, max_examples=200)
def test_the_score_of_a_binary_property_is_the_auc(rows):
    *values, target = np.array(rows).T.astype(np.float64)
    target = target > 1
    if 0 < target.sum() < len(target):
        expected = [by_pairs(column, target) for column in values]
        assert rank_scores(np.array(values), target) == pytest.approx(expected, abs=1e-12)


@given(COLUMNS)
@settings(deadline=None, max_examples=200)
def test_the_score_of_a_quantity_is_the_rank_correlation(rows):
    *values, target = np.array(rows).T.astype(np.float64)
    if np.ptp(target):
        expected = [
            np.corrcoef(mean_ranks(column), mean_ranks(target))[0, 1] if np.ptp(column) else 0.0
            for column in values
        ]
        assert rank_scores(np.array(values), target) == pytest.approx(expected, abs=1e-9)


@given(COLUMNS)
@settings(deadline=None, max_examples=200)
def test_no_other_threshold_separates_better(rows):
    values, _, target = np.array(rows).T
    target = target > 1
    if 0 < target.sum() < len(target) and np.ptp(values):

        def separated(threshold):
            return (values[target] > threshold).mean() - (values[~target] > threshold).mean()

        found = best_threshold(values, target)
        assert found not in values
        assert separated(found) >= max(separated(value) for value in np.unique(values)[:-1]) - 1e-12


def planted(
    property_, *, sign=1.0, noise=0.1, units=40, layers=2, cell="lstm", kind="char", text=None, **shape
):
    """A trace of noise in which one unit, number 7 of the last layer, tracks a property of the text."""
    text = text or some_text(2000)
    trace = trace_text(make(kind, cell, layers=layers, hidden_size=units, **shape), text)
    rng = np.random.default_rng(0)
    hidden = [rng.normal(size=layer.shape) for layer in trace.hidden]
    tracked = property_(trace.text)[trace.last_read]
    tracked = tracked[::-1] if trace.model.backward else tracked
    hidden[-1][1:, 7] = sign * (tracked + noise * rng.normal(size=len(tracked)))
    cell_states = {layer: rng.normal(size=state.shape) for layer, state in enumerate(hidden)}
    return replace(trace, hidden=hidden, cell_states=cell_states if cell == "lstm" else {})


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("cell", "kind"), [("lstm", "char"), ("gru", "bpe"), ("rnn", "word"), ("gru", "byte")]
)
def test_a_unit_that_tracks_a_property_is_found(cell, kind, sign, direction):
    def property_(text):
        return matching(text, " ?(the|sea)")

    text = "a boat the sea was calm. " * 40
    trace = planted(property_, sign=sign, cell=cell, kind=kind, text=text, direction=direction)
    found = find_units(trace, property_(trace.text))
    best = found.units[0]
    assert (best.layer, best.unit, best.name, best.direction) == (1, 7, "h", sign)
    assert best.score > 0.99 and best.selection_score > 0.99 and found.measure == "auc"
    assert found.candidates == 2 * 40 * (2 if cell == "lstm" else 1)
    inside = trace.values(1, "h", 7) * sign > best.threshold * sign
    assert (inside == property_(trace.text)[trace.last_read]).mean() > 0.98
    assert found.units == sorted(found.units, key=lambda unit: -unit.score)
    assert len(find_units(trace, property_(trace.text), 3).units) == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_a_unit_that_tracks_a_quantity_is_found(sign):
    # Only ranks matter: the unit is the cube of the quantity.
    def cube(text):
        return PROPERTIES["line_position"](text) ** 3

    trace = planted(cube, sign=sign)
    found = find_units(trace, PROPERTIES["line_position"](trace.text))
    best = found.units[0]
    assert (best.layer, best.unit, best.direction, best.threshold) == (1, 7, sign, None)
    assert best.score > 0.99 and found.measure == "spearman"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_chance_fits_do_not_score_well_on_held_out_text(seed):
    # Slow units and a few long stretches: some units always fit one part of the text.
    trace = trace_text(make(layers=1, hidden_size=400), some_text(3000))
    states = np.random.default_rng(seed).normal(size=(3001, 400))
    for before, after in pairwise(states):
        after += 0.98 * before
    trace = replace(trace, hidden=[states], cell_states={0: states})
    there = np.zeros(3000, bool)
    for begin in range(200, 2800, 500):
        there[begin : begin + 80] = True
    units = find_units(trace, there).units
    assert np.mean([unit.selection_score for unit in units]) > 0.75
    assert 0.3 < np.mean([unit.score for unit in units]) < 0.65


def test_rare_tokens_are_all_compared_in_a_long_text():
    def property_(text):
        there = np.zeros(len(text), bool)
        there[[100, 5_000, 15_000, 29_000]] = True
        return there

    trace = planted(property_, layers=1, units=8, text=some_text(30_000))
    best = find_units(trace, property_(trace.text)).units[0]
    assert (best.unit, best.score) == (7, 1.0)


def test_a_trained_model_has_a_unit_for_word_ends(trained_run):
    trace = trace_text(load(trained_run, device="cpu"), some_text(4000, seed=5))
    best = find_units(trace, PROPERTIES["white_space"](trace.text)).units[0]
    assert best.score > 0.85
    values = trace.values(best.layer, best.name, best.unit) * best.direction
    outside = PROPERTIES["white_space"](trace.text)
    assert values[outside].mean() > values[~outside].mean()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_all_properties_at_once_give_the_best_of_all_units_for_each(cell, monkeypatch):
    """As scoring every unit exactly does; saturated units have many ties, and cell states outliers."""
    trace = trace_text(make(cell=cell, layers=2, hidden_size=60, seed=4), some_text(2000))
    if cell == "rnn":
        trace = replace(trace, hidden=[(h * 3).round(1).clip(-1, 1) for h in trace.hidden])
    if cell == "lstm":
        trace.cell_state(1)[100] *= 1000
    properties = {name: property_(trace.text) for name, property_ in PROPERTIES.items()}
    ranked = rank_properties(trace, properties, 5)
    single = {name: find_units(trace, properties[name], 5) for name in ranked}
    monkeypatch.setattr(units, "_MARGIN", 10**6)  # every unit is scored exactly
    assert len(ranked) > 5
    for name, found in ranked.items():
        exact = find_units(trace, properties[name], 5)
        assert found == single[name]
        assert found.units[:3] == exact.units[:3]
        assert {unit.unit for unit in found.units} == {unit.unit for unit in exact.units}


def test_properties_that_hardly_vary_are_not_ranked():
    trace = trace_text(make(), "the sea was calm and the boat was slow, the sea was slow")
    properties = {name: property_(trace.text) for name, property_ in PROPERTIES.items()}
    ranked = rank_properties(trace, properties)
    assert {"vowels", "white_space", "word_position"} <= set(ranked)
    assert not {"quotes", "comments", "indentation", "digits"} & set(ranked)
    assert rank_properties(trace, {}) == {}


def test_properties_that_hardly_vary_raise_a_user_error():
    trace = trace_text(make(), "the sea was calm")
    once = np.arange(16) == 4
    for property_, message in (
        (once & False, "nothing in this text has the property"),
        (once | True, "the whole text has the property"),
        (once, "occurs in one place only"),
        (np.arange(16) != 4, "occurs in one place only"),
        (np.arange(16) * 0.0, "constant in half of this text"),
        (once * 1.0, "constant in half of this text"),
    ):
        with pytest.raises(UserError, match=message):
            find_units(trace, property_)
    twice = once | (np.arange(16) == 9)
    assert len(find_units(trace, twice).units) == 2 * 2 * 4
