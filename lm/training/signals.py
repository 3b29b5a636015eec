"""Ctrl-C, SIGTERM and a closed terminal: a training run finishes its step, saves, and says how to resume.

The final scoring ends at once, because everything has been saved before it. On Windows, where no process can
send SIGTERM to another, Ctrl-Break (SIGBREAK) counts as SIGTERM. Elsewhere, a terminal that is closed sends
SIGHUP, which stays ignored after `nohup`.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lm.distributed import Ranks

BROKEN_PIPE = 13  # SIGPIPE, which Windows does not have and Python ignores


class Interrupted(BaseException):
    """A signal has arrived; like KeyboardInterrupt, this is not an error."""

    def __init__(self, number: int):
        self.number = number


@contextmanager
def listening(ranks: Ranks) -> Iterator[list[int]]:
    """Collect the numbers of received signals in a list; a second signal kills the process as usual.

    Python lets only the main thread handle signals: in another one, the list stays empty.

    With several ranks, later signals are ignored, even after training: torchrun sends them to ranks that
    are still saving or reporting that another rank has ended, and kills those that take too long.
    """
    received: list[int] = []
    with _handling(received.append, ranks):
        yield received


@contextmanager
def interruptible(received: list[int], ranks: Ranks) -> Iterator[None]:
    """Raise Interrupted in the block as soon as a signal arrives, or if one has been `received`.

    With several ranks, nothing changes: if one rank left the block on its own, the others would wait for it.
    """

    def interrupt(number: int) -> None:
        raise Interrupted(number)

    if not ranks.is_single_process:
        yield
        return
    with _handling(interrupt, ranks):
        if received:
            interrupt(received[0])
        yield


@contextmanager
def _handling(handle: Callable[[int], None], ranks: Ranks) -> Iterator[None]:
    """Call `handle` with the number of the first signal. In threads other than the main one, do nothing."""
    before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    meaning = {int(signal.SIGINT): int(signal.SIGINT), int(signal.SIGTERM): int(signal.SIGTERM)}
    if sys.platform == "win32":
        meaning[int(signal.SIGBREAK)] = int(signal.SIGTERM)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        meaning[int(signal.SIGHUP)] = int(signal.SIGHUP)

    def handler(number: int, _frame: object) -> None:
        if ranks.is_single_process:
            signal.signal(number, before[number])
        handle(meaning[number])

    try:
        for number in meaning:
            before[number] = signal.getsignal(number)
            signal.signal(number, handler)
        yield
    finally:
        if ranks.is_single_process:
            for number, previous in before.items():
                signal.signal(number, previous)
