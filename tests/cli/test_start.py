"""Ctrl-C while a command starts."""

import subprocess
import sys

import pytest

CODE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from lm.cli.start import exit_on_early_interrupt
exit_on_early_interrupt()
{}
print("went on")
"""
SWALLOWING = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"


@pytest.mark.posix
def test_it_ends_the_process_at_once_while_a_module_is_imported(here):
    (here / "swallowing.py").write_text(SWALLOWING)
    command = [sys.executable, "-c", CODE.format("import swallowing")]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\n")


@pytest.mark.posix
def test_it_raises_keyboard_interrupt_elsewhere(here):
    command = [sys.executable, "-c", CODE.format(SWALLOWING)]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "went on\n", "")
