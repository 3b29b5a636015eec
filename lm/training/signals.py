"""Ctrl-C and SIGTERM: a training finishes its step, saves, and says how to resume.

On Windows, where no process can send SIGTERM to another, Ctrl-Break (SIGBREAK) counts as SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm.distributed import Ranks

BROKEN_PIPE = 13  # SIGPIPE, which Windows does not have and Python ignores


@contextmanager
def listening(ranks: Ranks) -> Iterator[list[int]]:
    """Collect the numbers of received signals in a list; a second signal kills the process as usual.

    Python lets only the main thread handle signals: in another one, the list stays empty.

    With several ranks, later signals are ignored, even after training: torchrun sends them to ranks that
    are still saving or reporting that another rank has ended, and kills those that take too long.
    """
    received: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    meaning = {int(signal.SIGINT): int(signal.SIGINT), int(signal.SIGTERM): int(signal.SIGTERM)}
    if sys.platform == "win32":
        meaning[int(signal.SIGBREAK)] = int(signal.SIGTERM)

    def remember(number: int, _frame: object) -> None:
        received.append(meaning[number])
        if ranks.is_single_process:
            signal.signal(number, before[number])

    for number in meaning:
        before[number] = signal.getsignal(number)
        signal.signal(number, remember)
    try:
        yield received
    finally:
        if ranks.is_single_process:
            for number, handler in before.items():
                signal.signal(number, handler)
