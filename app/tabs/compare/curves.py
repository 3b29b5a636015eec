"""One picture of the loss curves of several runs, such as those that are compared.

Models with different tokens can be compared, since the picture is of bits per character, and over the
characters that were read: what the tokens of a run amount to is known from the figures in its config.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lm import saving
from lm.errors import UserError
from lm.run_folder import Run, read_metrics, validations

WIDTH, HEIGHT = 640, 320  # without the legend, small, so that the letters stay legible on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 16, 52
_ROW = 22  # of the legend
_LARGEST = 20_000_000  # bytes of metrics
_DASHES = ("none", "7 4", "2 3", "9 3 2 3")  # so that the curves differ in more than their colours
# Each colour is at least 3 : 1 against its background.
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #374151 }
  .back { fill: #ffffff } .grid { stroke: #e5e7eb }
  .a { stroke: #c2410c } .b { stroke: #1d4ed8 } .c { stroke: #0f766e } .d { stroke: #7e22ce }
  @media (prefers-color-scheme: dark) {
    text { fill: #d4d4d8 } .back { fill: #18181b } .grid { stroke: #3f3f46 }
    .a { stroke: #fb923c } .b { stroke: #60a5fa } .c { stroke: #2dd4bf } .d { stroke: #c084fc }
  }
"""


@dataclass(frozen=True)
class Curve:
    """How a run got better: at each validation how far it was, and its bits per character."""

    name: str
    characters: list[float]  # that it had read
    seconds: list[float]
    bits: list[float]  # per character of its validation text
    words: bool = False  # whether it knows words, and takes all others for the same


def curve_of(name: str, folder: Path) -> Curve | None:
    """The curve of the run in `folder`; None if there is none, or not enough to draw it."""
    try:
        config = saving.read_json(folder / "config.json", folder)
        figures = config["validation"]
        if (folder / "training" / "metrics.jsonl").stat().st_size > _LARGEST:
            return None
        points, _ = validations(read_metrics(Run(folder)))
        bits_per_nat = figures["bits_per_character"] / figures["loss"]
        per_token = bits_of(figures["loss"]) / figures["bits_per_character"]  # characters
        curve = Curve(
            name,
            [float(r["tokens"]) * per_token for r in points],
            [float(r["seconds"]) for r in points],
            [float(r["validation_loss"]) * bits_per_nat for r in points],
            words=config.get("tokenizer") == "word",
        )
    except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError):
        return None  # a saved model, or files that are damaged
    numbers = [*curve.characters, *curve.seconds, *curve.bits]
    return curve if len(points) > 1 and all(map(math.isfinite, numbers)) else None


def bits_of(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2)


def picture(curves: Sequence[Curve], by_time: bool, words: Mapping[str, str]) -> str:
    """An SVG of `curves` over the characters that were read, or over the seconds. `words` are what is
    written in it: `bits`, `characters`, `seconds`."""
    across = [curve.seconds if by_time else curve.characters for curve in curves]
    last = max(max(values) for values in across) or 1.0
    # The steep fall of the very first steps would squeeze everything after it into a flat line.
    bits = [b for curve in curves for b in (curve.bits[1:] if len(curve.bits) > 2 else curve.bits)]
    room = max((max(bits) - min(bits)) * 0.08, 0.02)
    low, high = min(bits) - room, max(bits) + room
    unit, times = _unit(last) if not by_time else ("", 1.0)

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / last

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    height = HEIGHT + _ROW * len(curves) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        f'<clipPath id="inside"><rect x="{_LEFT - 4}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT + 8}"'
        f' height="{HEIGHT - _TOP - _BOTTOM}"/></clipPath>',
    ]
    for value in _round_numbers(low, high):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _round_numbers(0, last):
        place = f'x="{x(value):.1f}" y="{HEIGHT - _BOTTOM + 20}"'
        number = f"{value / times:g}{unit}" if value else "0"
        parts.append(f'<text {place} text-anchor="middle">{number}</text>')
    below = escape(words["seconds" if by_time else "characters"])
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{below}</text>')
    turned = f'transform="translate(14 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{escape(words["bits"])}</text>')
    for number, (curve, values) in enumerate(zip(curves, across, strict=True)):
        stroke = f'class="{"abcd"[number]}" stroke-width="2" stroke-dasharray="{_DASHES[number]}"'
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(values, curve.bits, strict=True))
        parts.append(f'<polyline {stroke} fill="none" clip-path="url(#inside)" points="{line}"/>')
        at = HEIGHT + _ROW * number + 10
        parts.append(f'<path {stroke} d="M{_LEFT} {at}h30"/>')
        parts.append(f'<text x="{_LEFT + 40}" y="{at + 4}">{escape(_short(curve.name))}'
                     f" · {min(curve.bits):.3f}</text>")  # fmt: skip
    return "\n".join([*parts, "</svg>\n"])


def _unit(last: float) -> tuple[str, float]:
    return next(((u, t) for u, t in ((" G", 1e9), (" M", 1e6), (" k", 1e3)) if last >= t), ("", 1.0))


def _round_numbers(low: float, high: float) -> list[float]:
    """About five round numbers between `low` and `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _short(name: Any) -> str:
    name = "".join(c if c.isprintable() else "\ufffd" for c in str(name))
    return name if len(name) <= 60 else f"{name[:28]}…{name[-30:]}"
