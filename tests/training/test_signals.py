"""The signals that end a training."""

import signal

import pytest

from lm.distributed import ALONE
from lm.training.signals import listening


@pytest.mark.posix
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN], ids=["default", "nohup"])
def test_a_closed_terminal_ends_a_training_except_after_nohup(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with listening(ALONE) as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == ([] if handler is signal.SIG_IGN else [signal.SIGHUP])
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
