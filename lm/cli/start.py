"""Starts a command; it imports nothing else before Ctrl-C is handled."""

from __future__ import annotations

# The module `signal` would take a while to make enums of its constants.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn


def script(name: str | None = None) -> NoReturn:
    """The console script `lm`, or one of its subcommands as a script of its own."""
    exit_on_early_interrupt()
    cli, parser = import_module("lm.cli.main"), import_module("lm.cli.parser")
    sys.exit(parser.run(lambda: cli.main() if name is None else cli.run_command(name, sys.argv[1:])))


def exit_on_early_interrupt() -> None:
    """Let Ctrl-C end the process at once while a module is imported.

    KeyboardInterrupt would be a traceback there, if the command has not begun, and some modules catch it and
    go on. Elsewhere, it is raised as usual.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise ignored, as after `&`
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    innermost = frame
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"\n")
            os._exit(128 + number)
        frame = frame.f_back
    signal.default_int_handler(number, innermost)
