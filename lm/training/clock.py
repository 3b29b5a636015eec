"""The clock of a training run. It excludes time during which the process was suspended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TICK = 5.0  # seconds
_LONGEST = 60.0  # seconds: a longer gap between two ticks is not counted


class Clock:
    """Counts seconds, from `seconds` on, while it runs.

    While it runs, it ticks every few seconds. If the machine's clock has moved much further than that, or
    backward, then it has jumped, or the machine or the process was suspended. Such a gap is not counted.
    """

    def __init__(self, seconds: float = 0.0):
        self._seconds = seconds
        self._last: float | None = None  # what the machine's clock has shown; None: not running
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the block runs."""
        over = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(over,), daemon=True)
        with self._lock:
            self._last = time.perf_counter()
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()
            self.seconds()
            self._last = None

    def seconds(self) -> float:
        """The seconds counted so far."""
        with self._lock:
            if self._last is not None:
                now = time.perf_counter()
                gap, self._last = now - self._last, now
                self._seconds += gap if 0 < gap <= _LONGEST else 0.0
            return self._seconds

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(_TICK):
            self.seconds()
