"""One step of one unit: every equation of its cell with the real numbers, as in lm/model/cells.py.

Nothing is taken from a trace but what the step begins with, x and the state before. The sums are added up
here term by term, from the weights of this one unit, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lm.errors import UserError
from lm.insight.trace import GATES, Trace

_SQUASHED = {"r": "σ", "z": "σ", "n": "tanh", "i": "σ", "f": "σ", "g": "tanh", "o": "σ", "h": "tanh"}


@dataclass(frozen=True)
class Term:
    """One addend of W x or W h."""

    source: str  # x or h
    index: int  # the dimension of the embedding, or the unit of the layer below (x) or of this layer (h)
    value: float
    weight: float
    product: float


@dataclass(frozen=True)
class Gate:
    """A squashed sum: σ or tanh of what the input and the state before contribute, and the biases.

    total = from_x + bias_x + reset * (from_h + bias_h); `reset` is 1 but for the proposal of the GRU.
    """

    name: str  # r, z, n of the GRU; i, f, g, o of the LSTM; h of the RNN, which has only this
    function: str  # σ or tanh
    from_x: float
    bias_x: float
    from_h: float
    bias_h: float
    reset: float
    total: float
    value: float
    largest: tuple[Term, ...]  # the terms of both sums that move it most, the largest first


@dataclass(frozen=True)
class Equation:
    """An equation in three ways: names, numbers, and what comes of it."""

    name: str  # what it defines: a gate, c' or h'
    formula: str
    numbers: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} = {self.formula} = {self.numbers} = {_number(self.value)}"


@dataclass(frozen=True)
class Walkthrough:
    """What one unit of one layer does while one token is read."""

    cell: str
    layer: int
    unit: int
    token: int  # its number in the text
    read: str  # the text of the token
    h_before: float
    c_before: float | None  # of the LSTM
    gates: tuple[Gate, ...]
    c: float | None
    h: float
    equations: tuple[Equation, ...]  # in the order of computation


def walk_through(trace: Trace, token: int, layer: int, unit: int, largest: int = 8) -> Walkthrough:
    """The step in which a token of the text is read (`trace.token_at` finds that of a character), with the
    `largest` terms of each gate. Raises UserError for a token, layer or unit that is not there."""
    trace.check(layer, unit)
    if not 0 <= token < len(trace.tokens):
        raise UserError(f"there is no token {token}: they go from 0 to {len(trace.tokens) - 1}.")
    step = trace.step(token)
    here = slice(step, step + 1)
    x, h = (part[0].astype(np.float64) for part in (trace.inputs(layer, here), trace.before(layer, here)))
    c_before = float(trace.memory(layer)[step - 1, unit]) if trace.cell == "lstm" else None
    gates: dict[str, Gate] = {}
    for number, name in enumerate(GATES[trace.cell] or ("h",)):
        row = number * trace.units + unit
        w_x, w_h, b_x, b_h = (weight[row].astype(np.float64) for weight in trace.weights(layer))
        reset = gates["r"].value if name == "n" else 1.0
        gates[name] = _gate(name, x, w_x, float(b_x), h, w_h, float(b_h), reset, largest)
    h_before = float(h[unit])
    equations = [_gate_equation(gate) for gate in gates.values() if trace.cell != "rnn"]
    equations += _STATES[trace.cell](gates, h_before, c_before)
    return Walkthrough(
        cell=trace.cell,
        layer=layer,
        unit=unit,
        token=token,
        read=trace.text[trace.starts[token] : trace.ends[token]],
        h_before=h_before,
        c_before=c_before,
        gates=tuple(gates.values()),
        c=equations[-2].value if trace.cell == "lstm" else None,
        h=equations[-1].value,
        equations=tuple(equations),
    )


def _gate(
    name: str, x: np.ndarray, w_x: np.ndarray, b_x: float, h: np.ndarray, w_h: np.ndarray, b_h: float,
    reset: float, largest: int,
) -> Gate:  # fmt: skip
    from_x, from_h = w_x * x, w_h * h
    total = from_x.sum() + b_x + reset * (from_h.sum() + b_h)
    terms = [
        Term(source, n, float(values[n]), float(weights[n]), float(products[n]))
        for source, values, weights, products in (("x", x, w_x, from_x), ("h", h, w_h, from_h))
        for n in np.argsort(-np.abs(products), kind="stable")[:largest].tolist()
    ]
    terms.sort(key=lambda term: -abs(term.product) * (reset if term.source == "h" else 1))
    return Gate(
        name=name,
        function=_SQUASHED[name],
        from_x=float(from_x.sum()),
        bias_x=b_x,
        from_h=float(from_h.sum()),
        bias_h=b_h,
        reset=reset,
        total=float(total),
        value=math.tanh(total) if _SQUASHED[name] == "tanh" else _sigmoid(total),
        largest=tuple(terms[:largest]),
    )


def _gate_equation(gate: Gate) -> Equation:
    """A gate's equation. The two biases are one but where r comes between them."""
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


def _rnn(gates: dict[str, Gate], h: float, c: float | None) -> list[Equation]:
    only = _gate_equation(gates["h"])
    return [replace(only, name="h'")]


def _gru(gates: dict[str, Gate], h: float, c: float | None) -> list[Equation]:
    z, n = gates["z"].value, gates["n"].value
    numbers = f"(1 - {_number(z)})·{_signed(n)} + {_number(z)}·{_signed(h)}"
    return [Equation("h'", "(1 - z)·n + z·h", numbers, (1 - z) * n + z * h)]


def _lstm(gates: dict[str, Gate], h: float, c: float | None) -> list[Equation]:
    i, f, g, o = (gates[name].value for name in "ifgo")
    written = f * c + i * g
    kept = f"{_number(f)}·{_signed(c)} + {_number(i)}·{_signed(g)}"
    return [
        Equation("c'", "f·c + i·g", kept, written),
        Equation("h'", "o·tanh(c')", f"{_number(o)}·tanh({_number(written)})", o * math.tanh(written)),
    ]


_STATES: dict[str, Callable[[dict[str, Gate], float, float | None], list[Equation]]] = {
    "rnn": _rnn,
    "gru": _gru,
    "lstm": _lstm,
}


def _sigmoid(value: float) -> float:
    # e to a large power overflows, so it is taken of a negative number.
    small = math.exp(-abs(value))
    return (1 if value >= 0 else small) / (1 + small)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _signed(value: float) -> str:
    """A factor: a negative one stands in brackets."""
    number = _number(value)
    return f"({number})" if number.startswith("-") else number


def _added(value: float) -> str:
    number = _number(value)
    return f" - {number[1:]}" if number.startswith("-") else f" + {number}"
