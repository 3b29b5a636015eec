"""Standard input, output and error of a command, which may be closed, full or broken."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

from lm.console.notebook import in_notebook
from lm.errors import UserError


class StandardStream(io.RawIOBase):
    """Standard output or error, which remembers that a write has failed.

    Errors that it `tolerates` are not raised; what could not be written is lost.
    """

    def __init__(self, raw: io.RawIOBase):
        self._raw = raw
        self.tolerates: Callable[[OSError], bool] = lambda error: False
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some bytes of `data`. Returns how many. Raises OSError."""
        try:
            return self._raw.write(data) or 0
        except OSError as error:
            self.error = _as_on_linux(error)
            if not self.tolerates(self.error):
                raise self.error from None
            return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def discard(self) -> None:
        """Discard what cannot be written; otherwise Python would report it again on exit."""
        self.tolerates = lambda error: True


def prepare() -> StandardStream | None:
    """Make the standard streams usable before a command runs. Returns standard output, or None in a notebook
    or if it has been replaced.

    Reading or writing a closed one then raises OSError. Otherwise it would not exist, and the next file that
    is opened would take its place. Writing to standard error never fails.
    """
    _replace_closed()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if in_notebook():  # whose streams are not files, and stay when the command has ended
        return None
    if sys.stderr is sys.__stderr__:
        errors = StandardStream(_raw(2, sys.stderr))
        errors.discard()
        sys.stderr = _text(errors, sys.stderr)
        sys.stderr.reconfigure(line_buffering=True)
    if sys.stdout is not sys.__stdout__:
        return None
    output = StandardStream(_raw(1, sys.stdout))
    sys.stdout = _text(output, sys.stdout)
    return output


def outlive_output() -> None:
    """Keep running if standard output cannot be written, for example because a training run would be lost.

    The command still ends with the error. `lm.console.terminal` handles a closed pipe (`| head`).
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, StandardStream):
        raw.tolerates = lambda error: not isinstance(error, BrokenPipeError)


def read_input(size: int = -1) -> bytes:
    """Up to `size` bytes of standard input, by default all. Raises UserError if it cannot be read."""
    try:
        return sys.stdin.buffer.read(size)
    except OSError as error:
        raise UserError(f"cannot read standard input: {reason(error)}.") from error


def reason(error: OSError) -> str:
    """Why a standard stream cannot be read or written."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def _replace_closed() -> None:
    """Put a file that cannot be read or written in the place of each standard stream that is closed."""
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number, which is this one


def _raw(number: int, stream: TextIO | None) -> io.RawIOBase:
    """What the bytes of a standard stream are written to."""
    raw: Any = getattr(getattr(stream, "buffer", None), "raw", None)
    if type(raw).__name__ == "_WindowsConsoleIO":  # which displays UTF-8 whatever the console's code page
        return cast(io.RawIOBase, raw)
    return io.FileIO(number, "w", closefd=False)


def _as_on_linux(error: OSError) -> OSError:
    """Windows says that an argument is invalid where the reader of a pipe has closed it."""
    if sys.platform == "win32" and error.errno == errno.EINVAL:
        return BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return error


def _text(raw: StandardStream, like: TextIO | None) -> io.TextIOWrapper:
    """A text stream that writes to `raw`, in the encoding of another one."""
    # Characters missing from the encoding are written as \u4e2d, as Python's errors are.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        like.encoding if like else None,
        "backslashreplace",
        line_buffering=bool(like and like.line_buffering),
    )
