"""One step of one unit: the equations of its cell, as in lm/model/cells.py, with their actual numbers.

Only x and the previous state come from the trace. All sums are computed here in double precision, term by
term from the weights of the unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lm.errors import UserError
from lm.insight.trace import Trace
from lm.model.cells import CELLS

# The inputs of a linear map, its weights and its bias.
_Map = tuple[np.ndarray, np.ndarray, float]


@dataclass(frozen=True)
class Term:
    """One term of W x or W h."""

    source: str  # x or h
    index: int  # of the embedding dimension or unit below (x), or of the unit in this layer (h)
    value: float
    weight: float
    product: float


@dataclass(frozen=True)
class Gate:
    """A gate or candidate: σ or tanh of a sum of contributions.

    total = from_x + bias_x + reset * (from_h + bias_h), where `reset` is 1 except for the candidate of a GRU.
    """

    name: str  # GRU: r, z, n; LSTM: i, f, g, o; RNN: h
    function: str  # σ or tanh
    from_x: float
    bias_x: float
    from_h: float
    bias_h: float
    reset: float
    total: float
    value: float
    largest: tuple[Term, ...]  # the terms of both sums with the largest absolute contributions, largest first


@dataclass(frozen=True)
class Equation:
    """An equation as a formula, with numbers, and its value."""

    name: str  # of its left side: a gate, c' or h'
    formula: str
    numbers: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} = {self.formula} = {self.numbers} = {_number(self.value)}"


_States = tuple[dict[str, float], list[Equation]]  # `products` and the equations of the new state


@dataclass(frozen=True)
class Walkthrough:
    """What one unit of one layer computes when the network reads one token."""

    cell: str
    layer: int
    unit: int
    token: int  # index in the text
    read: str  # the text of the token
    h_before: float
    c_before: float | None  # LSTM only
    gates: tuple[Gate, ...]
    products: dict[str, float]  # what is between the gates and the new state, by its formula
    c: float | None  # LSTM only
    h: float
    equations: tuple[Equation, ...]  # in the order of computation


def walk_through(trace: Trace, token: int, layer: int, unit: int, largest: int = 8) -> Walkthrough:
    """The step in which a token of the text is read (`trace.token_at` finds the token of a character), with
    the `largest` terms of each gate. Raises UserError if the token, layer or unit does not exist."""
    return walk_through_all(trace, range(token, token + 1), layer, unit, largest)[0]


def walk_through_all(
    trace: Trace, tokens: range, layer: int, unit: int, largest: int = 8
) -> list[Walkthrough]:
    """The steps in which several tokens are read, as `walk_through` describes each."""
    trace.check(layer, unit)
    for token in tokens:
        if not 0 <= token < len(trace.tokens):
            raise UserError(f"token must be between 0 and {len(trace.tokens) - 1}, got {token}.")
    weights = trace.weights(layer)
    rows = [
        tuple(weight[number * trace.units + unit].astype(np.float64) for weight in weights)
        for number in range(len(CELLS[trace.cell].gates))
    ]
    return [_step(trace, rows, token, layer, unit, largest) for token in tokens]


def _step(
    trace: Trace, rows: Sequence[tuple[np.ndarray, ...]], token: int, layer: int, unit: int, largest: int
) -> Walkthrough:
    """One step, given each gate's rows of weight_ih, weight_hh, bias_ih and bias_hh."""
    step = trace.step(token)
    steps = slice(step, step + 1)
    x, h = (part[0].astype(np.float64) for part in (trace.inputs(layer, steps), trace.before(layer, steps)))
    c_before = float(trace.cell_state(layer)[step - 1, unit]) if trace.cell == "lstm" else None
    gates: dict[str, Gate] = {}
    for row, (name, activation) in zip(rows, CELLS[trace.cell].gates.items(), strict=True):
        w_x, w_h, b_x, b_h = row
        reset = gates["r"].value if name == "n" else 1.0
        gates[name] = _gate(name, activation, (x, w_x, float(b_x)), (h, w_h, float(b_h)), reset, largest)
    h_before = float(h[unit])
    products, states = _STATES[trace.cell](gates, h_before, c_before or 0.0)
    equations = [_gate_equation(gate) for gate in gates.values() if trace.cell != "rnn"] + states
    return Walkthrough(
        cell=trace.cell,
        layer=layer,
        unit=unit,
        token=token,
        read=trace.text[trace.starts[token] : trace.ends[token]],
        h_before=h_before,
        c_before=c_before,
        gates=tuple(gates.values()),
        products=products,
        c=equations[-2].value if trace.cell == "lstm" else None,
        h=equations[-1].value,
        equations=tuple(equations),
    )


def _gate(name: str, activation: str, x_map: _Map, h_map: _Map, reset: float, largest: int) -> Gate:
    (x, w_x, b_x), (h, w_h, b_h) = x_map, h_map
    from_x, from_h = w_x * x, w_h * h
    total = from_x.sum() + b_x + reset * (from_h.sum() + b_h)
    terms = [
        Term(source, i, float(values[i]), float(weights[i]), float(products[i]))
        for source, values, weights, products in (("x", x, w_x, from_x), ("h", h, w_h, from_h))
        for i in np.argsort(-np.abs(products), kind="stable")[:largest].tolist()
    ]
    terms.sort(key=lambda term: -abs(term.product) * (reset if term.source == "h" else 1))
    return Gate(
        name=name,
        function="tanh" if activation == "tanh" else "σ",
        from_x=float(from_x.sum()),
        bias_x=b_x,
        from_h=float(from_h.sum()),
        bias_h=b_h,
        reset=reset,
        total=float(total),
        value=math.tanh(total) if activation == "tanh" else _sigmoid(total),
        largest=tuple(terms[:largest]),
    )


def _gate_equation(gate: Gate) -> Equation:
    """The equation of a gate, with one bias: the two are distinct only where r multiplies one of them."""
    if gate.name == "n":
        formula = "tanh(W_xn·x + b_xn + r·(W_hn·h + b_hn))"
        sums = f"{_number(gate.from_x)}{_added(gate.bias_x)} + {_number(gate.reset)}·"
        sums += f"({_number(gate.from_h)}{_added(gate.bias_h)})"
    else:
        formula = f"{gate.function}(W_x{gate.name}·x + W_h{gate.name}·h + b_{gate.name})"
        sums = f"{_number(gate.from_x)}{_added(gate.from_h)}{_added(gate.bias_x + gate.bias_h)}"
    return Equation(
        gate.name, formula, f"{gate.function}({sums}) = {gate.function}({_number(gate.total)})", gate.value
    )


def _rnn(gates: dict[str, Gate], h: float, c: float) -> _States:
    only = _gate_equation(gates["h"])
    return {}, [replace(only, name="h'")]


def _gru(gates: dict[str, Gate], h: float, c: float) -> _States:
    z, n = gates["z"].value, gates["n"].value
    from_h = gates["n"].from_h + gates["n"].bias_h
    products = {
        "W_hn·h + b_hn": from_h,
        "r·(W_hn·h + b_hn)": gates["r"].value * from_h,
        "1 - z": 1 - z,
        "(1 - z)·n": (1 - z) * n,
        "z·h": z * h,
    }
    numbers = f"(1 - {_number(z)})·{_signed(n)} + {_number(z)}·{_signed(h)}"
    new_h = products["(1 - z)·n"] + products["z·h"]
    return products, [Equation("h'", "(1 - z)·n + z·h", numbers, new_h)]


def _lstm(gates: dict[str, Gate], h: float, c: float) -> _States:
    i, f, g, o = (gates[name].value for name in "ifgo")
    products = {"f·c": f * c, "i·g": i * g}
    new_c = products["f·c"] + products["i·g"]
    products["tanh(c')"] = math.tanh(new_c)
    numbers = f"{_number(f)}·{_signed(c)} + {_number(i)}·{_signed(g)}"
    return products, [
        Equation("c'", "f·c + i·g", numbers, new_c),
        Equation("h'", "o·tanh(c')", f"{_number(o)}·tanh({_number(new_c)})", o * products["tanh(c')"]),
    ]


_STATES: dict[str, Callable[[dict[str, Gate], float, float], _States]] = {
    "rnn": _rnn,
    "gru": _gru,
    "lstm": _lstm,
}


def _sigmoid(value: float) -> float:
    # Only e to a negative power is computed, because a large positive one overflows.
    small = math.exp(-abs(value))
    return (1 if value >= 0 else small) / (1 + small)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _signed(value: float) -> str:
    """A number as a factor: in parentheses if negative."""
    number = _number(value)
    return f"({number})" if number.startswith("-") else number


def _added(value: float) -> str:
    number = _number(value)
    return f" - {number[1:]}" if number.startswith("-") else f" + {number}"
