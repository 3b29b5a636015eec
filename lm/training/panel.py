"""The panel of a training run in the cell of a notebook: a progress bar and, below it, the loss curve."""

from __future__ import annotations

import time
from base64 import b64encode
from html import escape

from lm.console.notebook import Output

_EVERY = 0.5  # seconds
_GROWTH = 1.02  # of the steps, after which the curve looks different


class Panel:
    """An output of the cell, updated in place. When the training has ended, only the curve stays."""

    def __init__(self) -> None:
        self._output = Output()
        self._shown = self._drawn = 0.0
        self._svg, self._step, self._closed = "", 0, False

    def update(self, done: float, metrics: str) -> None:
        """Show the share of the budget that is spent, and the line of metrics, unless it was just shown."""
        now = time.monotonic()
        if now - self._shown < _EVERY:
            return
        self._shown = now
        done = min(done, 1.0)  # a budget may be exceeded slightly
        self._output.show(text_plain=f"{done:4.0%}  {metrics}", text_html=self._html(done, metrics))

    def curve_due(self, step: int) -> bool:
        """Whether the curve up to `step` should be drawn."""
        return step >= self._step * _GROWTH and time.monotonic() - self._drawn >= _EVERY

    def curve(self, svg: str, step: int) -> None:
        """Show another curve, up to `step`, with the next update; alone and at once if the training has
        ended."""
        self._svg, self._step, self._drawn = svg, step, time.monotonic()
        if self._closed:
            self._show_curve()

    def close(self) -> None:
        """Leave only the curve."""
        self._closed = True
        if self._svg:
            self._show_curve()

    def _show_curve(self) -> None:
        self._output.show(text_plain="the loss curve", image_svg=self._svg)

    def _html(self, done: float, metrics: str) -> str:
        bar = f'<progress value="{done:.4f}" style="width: 12em"></progress>'
        line = f'<div style="font-family: monospace">{bar} {done:4.0%}&ensp;{escape(metrics)}</div>'
        # As an image: the style of an SVG that is part of the page would apply to the whole page.
        data = b64encode(self._svg.encode()).decode()
        source = f'src="data:image/svg+xml;base64,{data}" alt="loss curve"'
        image = f'<img {source} style="max-width: 35em; width: 100%">'
        return line + (image if self._svg else "")
