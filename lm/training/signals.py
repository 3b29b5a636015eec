"""Ctrl-C and SIGTERM: a training finishes its step, saves and says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lm.distributed import Ranks


@contextmanager
def listening(ranks: Ranks) -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM write their number into; the second one kills as usual.

    Of several ranks none is killed by the second one, or after the training: torchrun sends it to those
    that are just saving, or telling that another has ended. It kills by itself where that takes long.
    """
    received: list[int] = []
    before = {}

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        if ranks.alone:
            signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, remember)
    try:
        yield received
    finally:
        if ranks.alone:
            for number, handler in before.items():
                signal.signal(number, handler)
