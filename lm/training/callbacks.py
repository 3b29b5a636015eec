"""Functions of a caller that watch and may stop training: `on_step` and `on_validation` of `lm.train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Row = dict[str, Any]  # a line of metrics.jsonl
Callback = Callable[[Row], object]


@dataclass(eq=False)
class Callbacks:
    """What is called after each step and after each validation, with its metrics; see `asks_to_stop`."""

    on_step: Callback | None = None
    on_validation: Callback | None = None
    _random: dict[str, Any] = field(default_factory=dict)  # the states of torch's generators in them

    def asks_to_stop(self, callback: Callback, row: Row) -> bool:
        """Call one of the two with a row of metrics. Returns whether it asks to stop the training, by
        returning False.

        Any other return value continues training: logging functions return None or whatever their logger
        returns.
        """
        with self._drawing():
            returned = callback(row)
        return isinstance(returned, (bool, np.bool_)) and not returned

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """In the block, torch draws from the callbacks' own random states, not from those of the training."""
        of_training = _random_states()
        _set_random_states(self._random)
        try:
            yield
        finally:
            self._random = _random_states()
            _set_random_states(of_training)


NONE = Callbacks()


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
