"""Functions of a caller that watch and may stop training: `on_step` and `on_validation` of `lm.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]  # a line of metrics.jsonl
Callback = Callable[[Row], object]


@dataclass(frozen=True)
class Callbacks:
    """What is called after each step and after each validation, with its metrics; see `stops`."""

    on_step: Callback | None = None
    on_validation: Callback | None = None


NONE = Callbacks()


def stops(callback: Callback, row: Row) -> bool:
    """Call `callback` with a row of metrics. Returns whether it stops the training, by returning False.

    Any other return value continues training: logging functions return None or whatever their logger returns.
    """
    returned = callback(row)
    return isinstance(returned, (bool, np.bool_)) and not returned
