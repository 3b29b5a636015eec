"""The drawn cell gets exactly the numbers of the walkthrough, for every cell, layer and direction."""

import re

import pytest

from app.tabs.inside.analysis import AnalysisCache
from app.tabs.inside.cell import cell_steps
from app.tabs.inside.results import PROPERTY_NAMES
from lm.errors import UserError
from lm.insight.walkthrough import walk_through
from lm.language_model import load
from lm.model.cells import CELLS
from lm.storage.model_folder import PRETRAINED
from tests.app.tabs.inside.example import EXAMPLE
from tests.insight.networks import SAMPLE, make


def analyze(cell, kind="char", **shape):
    model = make(kind, cell, layers=3, hidden_size=6, **shape)
    return AnalysisCache().get(model, SAMPLE.replace("\x85", " ")[:300])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "shape", [{}, {"residual": True}, {"direction": "backward"}], ids=["plain", "residual", "backward"]
)
def test_every_number_is_that_of_the_walkthrough(cell, shape):
    analysis = analyze(cell, **shape)
    for layer, unit, token in ((0, 0, 0), (1, 5, 150), (2, 3, len(analysis.tokens) - 1)):
        drawn = cell_steps(analysis, token, layer, unit)
        assert drawn["first"] <= token < drawn["first"] + len(drawn["steps"])
        assert len(drawn["steps"]) == len(drawn["tokens"]) == 96
        for number, step in enumerate(drawn["steps"]):
            walk = walk_through(analysis.trace, drawn["first"] + number, layer, unit, 5)
            states = {"h": walk.h_before, "h'": walk.h}
            if cell == "lstm":
                states |= {"c": walk.c_before, "c'": walk.c}
            gates = {gate.name: gate.value for gate in walk.gates}
            expected = gates | walk.products | states
            assert step["values"] == {name: f"{value:+.3f}" for name, value in expected.items()}
            assert step["numbers"] == [equation.numbers for equation in walk.equations]
            for gate in walk.gates:
                shown = step["gates"][gate.name]
                bias = gate.bias_x if gate.name == "n" else gate.bias_x + gate.bias_h
                sums = {"x": gate.from_x, "h": gate.from_h, "b": bias, "total": gate.total}
                assert {name: shown[name] for name in sums} == {n: f"{v:+.3f}" for n, v in sums.items()}
                assert shown["largest"] == [
                    [f"{t.source}{t.index}", f"{t.value:+.3f}", f"{t.weight:+.3f}", f"{t.product:+.3f}"]
                    for t in gate.largest
                ]
        assert drawn["equations"] == [[e.name, e.formula] for e in walk.equations]


def test_sources_are_named_by_their_layer_and_by_what_they_track():
    analysis = AnalysisCache().get(load(PRETRAINED), EXAMPLE)
    layer, unit = next(place for place, name in analysis.tracked.items() if name == "quotes")
    assert cell_steps(analysis, 200, layer, unit)["title"] == (
        f"Layer {layer + 1}, unit {unit} · inside quotes"
    )
    below = cell_steps(analysis, 200, 0, 0)["sources"]
    above = cell_steps(analysis, 200, 1, 0)["sources"]
    for sources, of_x, layer_of_h in ((below, "embedding {}", 0), (above, "layer 1, unit {}", 1)):
        for key, (name, tracked) in sources.items():
            index = int(key[1:])
            assert name == (of_x if key[0] == "x" else "unit {}").format(index)
            place = (layer_of_h if key[0] == "h" else layer_of_h - 1), index
            expected = PROPERTY_NAMES.get(analysis.tracked.get(place, ""), "")
            assert tracked.lower() == expected.lower()
    assert any(tracked for _, tracked in (below | above).values())


def test_a_token_from_right_to_left_does_not_reorder_its_probability():
    for step in cell_steps(analyze("rnn"), 1, 0, 0)["steps"]:
        predictions = step["predicted"].split(" · ")
        assert all(re.fullmatch("“\u2068.+\u2069” [0-9]+%", prediction) for prediction in predictions)


def test_steps_that_do_not_exist_are_errors():
    analysis = analyze("rnn")
    for token, layer, unit in ((-1, 0, 0), (10**6, 0, 0), (0, 3, 0), (0, 0, 6)):
        with pytest.raises(UserError):
            cell_steps(analysis, token, layer, unit)
