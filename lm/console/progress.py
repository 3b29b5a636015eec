"""The callback that reports progress while text is downloaded, read and tokenized."""

from __future__ import annotations

from collections.abc import Callable, Iterator

# Called with the current task and the fraction of it that is done, None if the total is unknown.
ProgressCallback = Callable[[str, float | None], None]


def no_progress(task: str, fraction: float | None) -> None:
    """Report nothing."""


def with_progress(
    pieces: Iterator[bytes], task: str, total: int | None, progress: ProgressCallback
) -> Iterator[bytes]:
    """Yield `pieces`, reporting how many of `total` bytes have been consumed."""
    done = 0
    progress(task, 0.0 if total else None)
    for piece in pieces:
        yield piece
        done += len(piece)
        amount = f", {done / 1e6:,.0f} MB" if done >= 1e6 else ""
        progress(task + amount, min(done / total, 1.0) if total else None)
