"""loss.svg: the loss curve of a run, drawn without a plotting library."""

from __future__ import annotations

import math
from itertools import dropwhile
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 350  # small, so that the letters stay legible in a narrow column
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 66, 52
_MOST_POINTS = 400
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #374151 }
  .title { font-size: 15px; font-weight: 600 }
  .back { fill: #ffffff } .grid { stroke: #e5e7eb }
  .train { stroke: #94a3b8 } .validation { stroke: #ea580c } .dot { fill: #ea580c }
  @media (prefers-color-scheme: dark) {
    text { fill: #d4d4d8 } .back { fill: #18181b } .grid { stroke: #3f3f46 } .train { stroke: #71717a }
  }
"""

Points = list[tuple[float, float]]


def loss_curve(records: list[dict[str, Any]], title: str) -> str:
    """An SVG of training and validation loss (nats per token) over the steps."""
    train = _thin([(r["step"], r["train_loss"]) for r in records if "train_loss" in r])
    # The last record scores the whole validation text and replaces that step's estimate.
    by_step = {r["step"]: r["validation_loss"] for r in records if "validation_loss" in r}
    validation = sorted(by_step.items())
    if not train + validation:
        train = [(0, 0.0)]
    low, high = _range(train, validation)
    train = list(dropwhile(lambda point: point[1] > high, train))
    last = max(x for x, _ in train + validation) or 1

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(loss, high)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
    ]
    for value in _ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(0, last):
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:,g}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>')
    parts.append(
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "loss (nats per token)</text>"
    )
    for name, points in (("train", train), ("validation", validation)):
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
        parts.append(f'<polyline class="{name}" fill="none" stroke-width="2" points="{path}"/>')
    parts += [
        f'<circle class="dot" cx="{x(step):.1f}" cy="{y(loss):.1f}" r="3"/>' for step, loss in validation
    ]
    parts += _legend(validation)
    return "\n".join([*parts, "</svg>\n"])


def _legend(validation: Points) -> list[str]:
    best = f" (best {min(loss for _, loss in validation):.3f})" if validation else ""
    line = 'fill="none" stroke-width="2"'
    return [
        f'<path class="train" {line} d="M{LEFT} 46h24"/><text x="{LEFT + 30}" y="50">training</text>',
        f'<path class="validation" {line} d="M{LEFT + 110} 46h24"/>',
        f'<text x="{LEFT + 140}" y="50">validation{best}</text>',
    ]


def _thin(points: Points) -> Points:
    """At most `_MOST_POINTS` points, each the mean of its neighbours."""
    group = math.ceil(len(points) / _MOST_POINTS)
    if group <= 1:
        return points
    chunks = [points[i : i + group] for i in range(0, len(points), group)]
    return [(chunk[-1][0], sum(loss for _, loss in chunk) / len(chunk)) for chunk in chunks]


def _range(train: Points, validation: Points) -> tuple[float, float]:
    """The losses to show. The steep fall of the very first steps is cut off, or it would squeeze
    everything after it into a flat line."""
    later = train[len(train) // 20 :] + validation
    low, high = min(loss for _, loss in later), max(loss for _, loss in later)
    room = max((high - low) * 0.06, 0.02)
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers between `low` and `high`."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
