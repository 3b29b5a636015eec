"""A step agrees with the trace, and the printed equations hold."""

import math
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.errors import UserError
from lm.insight.trace import trace_text
from lm.insight.walkthrough import walk_through
from lm.language_model import load
from lm.model.cells import CELLS
from lm.storage.model_folder import PRETRAINED
from tests.insight.networks import SHAPES, TEXTS, make


def evaluated(numbers):
    """The value of each side of an equation's numbers, which are rounded to three digits."""
    parts = numbers.split(" = ")
    names = {"σ": lambda x: 1 / (1 + math.exp(-x)), "tanh": math.tanh}
    return [eval(part.replace("·", "*"), names) for part in parts]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@given(shape=SHAPES, text=TEXTS, kind=st.sampled_from(["char", "byte", "word"]), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_step_agrees_with_the_trace(cell, shape, text, kind, data):
    trace = trace_text(make(kind, cell, **shape), text)
    token = data.draw(st.integers(0, len(trace.tokens) - 1))
    layer = data.draw(st.integers(0, trace.layers - 1))
    unit = data.draw(st.integers(0, trace.units - 1))
    walk = walk_through(trace, token, layer, unit, largest=1000)

    def at(name, token=token):
        return trace.values(layer, name, unit)[token]

    close = {"rel": 1e-9, "abs": 1e-12}
    assert walk.h == pytest.approx(at("h"), **close)
    assert {gate.name: gate.value for gate in walk.gates} == pytest.approx(
        {name: at(name) for name in (trace.names[2:] if cell == "lstm" else trace.names[1:] or "h")}, **close
    )
    before = token + (1 if trace.model.backward else -1)
    if 0 <= before < len(trace.tokens):
        assert walk.h_before == pytest.approx(at("h", before), **close)
    if cell == "lstm":
        assert walk.c == pytest.approx(at("c"), **close)
        if 0 <= before < len(trace.tokens):
            assert walk.c_before == pytest.approx(at("c", before), **close)
    else:
        assert walk.c is None and walk.c_before is None

    for gate in walk.gates:
        for source, total in (("x", gate.from_x), ("h", gate.from_h)):
            terms = [term for term in gate.largest if term.source == source]
            assert sum(term.product for term in terms) == pytest.approx(total, **close)
            assert all(term.weight * term.value == pytest.approx(term.product) for term in terms)
            assert sorted(term.index for term in terms) == list(range(len(terms)))
        effects = [abs(t.product) * (gate.reset if t.source == "h" else 1) for t in gate.largest]
        assert effects == sorted(effects, reverse=True)
        assert gate.total == pytest.approx(
            gate.from_x + gate.bias_x + gate.reset * (gate.from_h + gate.bias_h), **close
        )
    for equation in walk.equations:
        size = max([1.0, *(abs(float(number)) for number in re.findall(r"\d+\.\d+", equation.numbers))])
        assert evaluated(equation.numbers) == pytest.approx(
            [equation.value] * (1 + equation.numbers.count(" = ")), abs=2e-3 * size
        )
        assert str(equation).startswith(f"{equation.name} = {equation.formula} = ")


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_terms_are_weights_of_the_network(cell):
    trace = trace_text(make("char", cell, layers=2, hidden_size=5), "the sea")
    walk = walk_through(trace, 3, 1, 2, largest=4)
    w_ih, w_hh, _, _ = trace.model.network.recurrent.weights(1)
    for number, gate in enumerate(walk.gates):
        assert len(gate.largest) == 4
        for term in gate.largest:
            weight, values = {
                "x": (w_ih, trace.values(0, "h")[3]),
                "h": (w_hh, trace.values(1, "h")[2]),
            }[term.source]
            assert term.weight == weight[number * 5 + 2, term.index].item()
            assert term.value == pytest.approx(values[term.index])


def test_equations_of_the_shipped_model():
    trace = trace_text(load(PRETRAINED, device="cpu"), "print(")
    walk = walk_through(trace, trace.token_at(5), 0, 76)
    assert walk.read == "(" and (walk.layer, walk.unit, walk.token) == (0, 76, 5)
    assert [equation.name for equation in walk.equations] == ["i", "f", "g", "o", "c'", "h'"]
    assert walk.equations[4].formula == "f·c + i·g"
    assert walk.c == pytest.approx(trace.values(0, "c", 76)[5], abs=1e-5)
    assert re.fullmatch(
        r"h' = o·tanh\(c'\) = \d\.\d{3}·tanh\(-?\d+\.\d{3}\) = -?\d\.\d{3}", str(walk.equations[5])
    )


def test_steps_that_do_not_exist_raise_a_user_error():
    trace = trace_text(make(), "the sea")
    for step, message in (
        ((7, 0, 0), "token .* got 7"),
        ((0, 2, 0), "layer .* got 2"),
        ((0, 0, 4), "unit .* got 4"),
    ):
        with pytest.raises(UserError, match=message):
            walk_through(trace, *step)
