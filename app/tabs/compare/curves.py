"""The loss curves of several runs in one SVG image.

The vertical axis is in bits per character and the horizontal axis in characters or seconds, so that models
with different tokens can be compared. The characters per token come from the metrics in config.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lm.errors import UserError
from lm.files.model_files import open_file, read_json
from lm.storage.run_folder import Run, read_metrics, validations
from lm.training.plot import round_numbers

from ...ui.i18n import translate
from ...ui.model_facts import note, svg_image

WIDTH, HEIGHT = 640, 320  # without the legend; small, so that the text stays legible on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 16, 52
_LEGEND_ROW = 22
_MAX_METRICS_SIZE = 20_000_000  # bytes
_DASHES = ("none", "7 4", "2 3", "9 3 2 3")  # so that curves differ in more than color
# Each color has a contrast of at least 3:1 with its background.
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
    """The validation loss of a run over its training."""

    name: str
    characters: list[float]  # read before each validation
    seconds: list[float]
    bits: list[float]  # per character of the validation text
    # Bits per character of the whole validation text, of which `bits` may cover only the beginning.
    result: float
    word_level: bool = False  # whether its tokens are words, with one <unk> for all others


def curves_html(folders: Mapping[str, Path], names: Sequence[str], by_time: bool) -> str:
    """An image with the loss curves of the named models, and notes about those that are missing."""
    found = {name: read_curve(name, folders[name]) for name in dict.fromkeys(names) if name in folders}
    curves = [curve for curve in found.values() if curve]
    parts = [_image(curves, by_time)] if curves else []
    if word_level := [curve.name for curve in curves if curve.word_level]:
        warning = translate(
            "Word-level models read every word outside their vocabulary as <unk>, which makes their"
            " losses look too good: {names}.",
            names=", ".join(word_level),
        )
        parts.append(note(warning))
    if without := [name for name, curve in found.items() if not curve]:
        parts.append(note(translate("No loss curve: {names}.", names=", ".join(without))))
    return "".join(parts)


def _image(curves: Sequence[Curve], by_time: bool) -> str:
    labels = {
        "bits": translate("validation loss (bits per character)"),
        "characters": translate("characters read"),
        "seconds": translate("training time (seconds)"),
    }
    described = ", ".join(
        translate("{name}: {bits:.3f} bits per character", name=curve.name, bits=curve.result)
        for curve in curves
    )
    alt = translate("Loss curves: {curves}", curves=described)
    return svg_image(render_svg(curves, by_time, labels), alt)


def read_curve(name: str, folder: Path) -> Curve | None:
    """The curve of the run in `folder`; None if it is not a run, is damaged, or has too few validations."""
    try:
        config = read_json(folder / "config.json", folder)
        metrics = config["validation"]
        open_file(folder / "training" / "metrics.jsonl", folder, _MAX_METRICS_SIZE).close()
        records, _ = validations(read_metrics(Run(folder)))
        bits_per_nat = metrics["bits_per_character"] / metrics["loss"]
        characters_per_token = metrics["loss"] / math.log(2) / metrics["bits_per_character"]
        curve = Curve(
            name,
            [float(record["tokens"]) * characters_per_token for record in records],
            [float(record["seconds"]) for record in records],
            [float(record["validation_loss"]) * bits_per_nat for record in records],
            float(metrics["bits_per_character"]),
            word_level=config.get("tokenizer") == "word",
        )
    except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        return None
    values = [*curve.characters, *curve.seconds, *curve.bits, curve.result]
    return curve if len(records) > 1 and all(map(math.isfinite, values)) else None


@dataclass(frozen=True)
class _Axes:
    """The ranges of a plot, and where they are in the image."""

    right: float  # the largest horizontal value; the smallest is 0
    low: float
    high: float

    @classmethod
    def around(cls, curves: Sequence[Curve], by_time: bool) -> _Axes:
        right = max(max(_horizontal(curve, by_time)) for curve in curves) or 1.0
        bits = [b for curve in curves for b in curve.bits]
        later = [b for curve in curves for b in (curve.bits[1:] if len(curve.bits) > 2 else curve.bits)]
        if max(bits) - min(later) > 3 * (max(later) - min(later)):
            bits = later  # the steep fall after the first validation would flatten the rest
        margin = max((max(bits) - min(bits)) * 0.08, 0.02)
        return cls(right, min(bits) - margin, max(bits) + margin)

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / self.right

    def y(self, bits: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (bits - self.low) / (self.high - self.low)


def render_svg(curves: Sequence[Curve], by_time: bool, labels: Mapping[str, str]) -> str:
    """An SVG image of `curves` over the characters read, or over the seconds.

    `labels` are the titles of the axes: `bits`, and `characters` or `seconds`.
    """
    axes, height = _Axes.around(curves, by_time), HEIGHT + _LEGEND_ROW * len(curves) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        f'<clipPath id="inside"><rect x="{_LEFT - 4}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT + 8}"'
        f' height="{HEIGHT - _TOP - _BOTTOM}"/></clipPath>',
        *_vertical_axis(axes, labels["bits"]),
        *_horizontal_axis(axes, labels["seconds" if by_time else "characters"], by_time),
    ]
    for number, curve in enumerate(curves):
        parts += _curve(axes, curve, number, by_time)
    return "\n".join([*parts, "</svg>\n"])


def _vertical_axis(axes: _Axes, title: str) -> list[str]:
    parts = []
    for value in round_numbers(axes.low, axes.high, 5):
        y = axes.y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    rotated = f'transform="translate(14 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)"'
    return [*parts, f'<text {rotated} text-anchor="middle">{escape(title)}</text>']


def _horizontal_axis(axes: _Axes, title: str, by_time: bool) -> list[str]:
    suffix, scale = _si_prefix(axes.right) if not by_time else ("", 1.0)
    parts = []
    for value in round_numbers(0, axes.right, 5):
        position = f'x="{axes.x(value):.1f}" y="{HEIGHT - _BOTTOM + 20}"'
        number = f"{value / scale:g}{suffix}" if value else "0"
        parts.append(f'<text {position} text-anchor="middle">{number}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return [*parts, f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(title)}</text>']


def _curve(axes: _Axes, curve: Curve, number: int, by_time: bool) -> list[str]:
    """A curve and its row in the legend, with its result."""
    stroke = f'class="{"abcd"[number]}" stroke-width="2" stroke-dasharray="{_DASHES[number]}"'
    points = zip(_horizontal(curve, by_time), curve.bits, strict=True)
    line = " ".join(f"{axes.x(x):.1f},{axes.y(bits):.1f}" for x, bits in points)
    y = HEIGHT + _LEGEND_ROW * number + 10
    legend = f"{escape(_shortened(curve.name))} · {curve.result:.3f}"
    return [
        f'<polyline {stroke} fill="none" clip-path="url(#inside)" points="{line}"/>',
        f'<path {stroke} d="M{_LEFT} {y}h30"/>',
        f'<text x="{_LEFT + 40}" y="{y + 4}">{legend}</text>',
    ]


def _horizontal(curve: Curve, by_time: bool) -> list[float]:
    return curve.seconds if by_time else curve.characters


def _si_prefix(value: float) -> tuple[str, float]:
    prefixes = ((" G", 1e9), (" M", 1e6), (" k", 1e3))
    return next((prefix for prefix in prefixes if value >= prefix[1]), ("", 1.0))


def _shortened(name: str) -> str:
    name = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return name if len(name) <= 60 else f"{name[:28]}…{name[-30:]}"
