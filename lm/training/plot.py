"""Plots of a training run as SVG, without a plotting library: loss.svg and find-lr.svg."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import dropwhile
from typing import Any
from xml.sax.saxutils import escape

from lm.storage.run_folder import validations

WIDTH, HEIGHT = 560, 350  # small, so that the text stays legible in a narrow column
LEFT, RIGHT, TOP, BOTTOM = 60, 60, 66, 52
MAX_POINTS = 400
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #374151 }
  .title { font-size: 15px; font-weight: 600 }
  .back { fill: #ffffff } .grid { stroke: #e5e7eb }
  .train { stroke: #94a3b8 } .validation { stroke: #ea580c } .dot { fill: #ea580c }
  .ring { stroke: #ea580c; stroke-width: 2; fill: none }
  .rate { stroke: #0d9488 } .of-rate { fill: #0f766e }
  @media (prefers-color-scheme: dark) {
    text { fill: #d4d4d8 } .back { fill: #18181b } .grid { stroke: #3f3f46 } .train { stroke: #71717a }
    .rate { stroke: #2dd4bf } .of-rate { fill: #2dd4bf }
  }
"""

Points = list[tuple[float, float]]
Scale = Callable[[float], float]  # a value -> its coordinate


def loss_curve(records: list[dict[str, Any]], title: str) -> str:
    """Training and validation loss (nats per token) and the learning rate against the step, as SVG. Whatever
    the order of the records, no line runs backward."""
    losses = ("train_loss", "validation_loss")
    records = [r for r in records if all(math.isfinite(r[name]) for name in losses if name in r)]
    train, rates = (
        _thin(sorted((r["step"], r[name]) for r in records if name in r))
        for name in ("train_loss", "learning_rate")
    )
    regular, full = validations(records)
    validation = [(r["step"], r["validation_loss"]) for r in regular]
    whole = [(full["step"], full["validation_loss"])] if full else []
    if not train + validation:
        train = [(0, 0.0)]
    low, high = _range(train, validation + whole)
    train = list(dropwhile(lambda point: point[1] > high, train))
    last = max(x for x, _ in train + validation + rates) or 1
    x, y = _scale(0, last, LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = _frame(title, "step", [(x(step), f"{step:,g}") for step in round_numbers(0, last)], low, high)
    if rates:  # with an axis at the right
        highest = max(rate for _, rate in rates) * 1.05 or 1.0
        height = _scale(0, highest, HEIGHT - BOTTOM, TOP)
        parts.append(_line("rate", [(x(step), height(rate)) for step, rate in rates], 1.5))
        for rate in round_numbers(0, highest):
            position = f'x="{WIDTH - RIGHT + 8}" y="{height(rate) + 4:.1f}"'
            parts.append(f'<text class="of-rate" {position}>{rate:g}</text>')
    for name, points in (("train", train), ("validation", validation)):
        parts.append(_line(name, [(x(step), y(min(loss, high))) for step, loss in points]))
    parts += [_dot(x(step), y(min(loss, high))) for step, loss in validation]
    parts += [_ring(x(step), y(min(loss, high))) for step, loss in whole]
    note = f" (best {min(loss for _, loss in validation):.3f})" if validation else ""
    if whole:
        note = f" (○ all of it: {whole[0][1]:.3f})"
    parts += _legend("train", "training", 0) + _legend("validation", f"validation{note}", 100)
    parts += _legend("rate", "learning rate", 325, 1.5) if rates else []
    return "\n".join([*parts, "</svg>\n"])


def rate_curve(losses: Points, suggested: float, title: str) -> str:
    """The loss (nats per token) against the learning rate, with the suggested rate marked, as SVG."""
    first, last = math.log10(losses[0][0]), math.log10(losses[-1][0])
    # Where the loss explodes, it leaves the plot at the top.
    low, start = min(loss for _, loss in losses), losses[0][1]
    margin = max((start - low) * 0.1, 0.02)
    low, high = low - margin, start + 2 * margin
    x, y = _scale(first, last, LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    parts = _frame(title, "learning rate", [(x(p), f"{10.0**p:g}") for p in powers], low, high)
    points = [(x(math.log10(rate)), y(min(loss, high))) for rate, loss in losses]
    suggested_x = x(math.log10(suggested))
    parts.append(f'<path class="rate" d="M{suggested_x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    parts.append(_line("validation", points))
    parts += _legend("validation", "training loss", 0) + _legend(
        "rate", f"suggested: {suggested:.2g}", 160, 1
    )
    return "\n".join([*parts, "</svg>\n"])


def _frame(title: str, below: str, ticks: list[tuple[float, str]], low: float, high: float) -> list[str]:
    """Everything but the curves: title, grid, losses from `low` to `high` on the left axis, and `ticks`
    (coordinate, label) on the bottom axis."""
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
    ]
    for value in round_numbers(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for x, label in ticks:
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{below}</text>')
    parts.append(
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "loss (nats per token)</text>"
    )
    return parts


def _scale(low: float, high: float, at_low: float, at_high: float) -> Scale:
    """The straight line through (low, at_low) and (high, at_high)."""
    return lambda value: at_low + (at_high - at_low) * (value - low) / ((high - low) or 1)


def _line(name: str, points: Points, width: float = 2) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{name}" fill="none" stroke-width="{width}" points="{path}"/>'


def _dot(x: float, y: float) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _ring(x: float, y: float) -> str:
    return f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _legend(name: str, text: str, x: int, width: float = 2) -> list[str]:
    return [
        f'<path class="{name}" fill="none" stroke-width="{width}" d="M{LEFT + x} 46h24"/>',
        f'<text x="{LEFT + x + 30}" y="50">{escape(text)}</text>',
    ]


def _thin(points: Points) -> Points:
    """At most `MAX_POINTS` points, each the mean of a group of neighbors."""
    group = math.ceil(len(points) / MAX_POINTS)
    if group <= 1:
        return points
    chunks = [points[i : i + group] for i in range(0, len(points), group)]
    return [(chunk[-1][0], sum(loss for _, loss in chunk) / len(chunk)) for chunk in chunks]


def _range(train: Points, validation: Points) -> tuple[float, float]:
    """The range of losses to show. The steep fall of the first steps is cut off; it would squeeze the
    rest into a flat line."""
    later = train[len(train) // 20 :] + validation
    low, high = min(loss for _, loss in later), max(loss for _, loss in later)
    margin = max((high - low) * 0.06, 0.02)
    return low - margin, high + margin


def round_numbers(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers between `low` and `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
