"""`python -m app`: the same as `lm app`."""

import sys

from lm.cli.start import exit_on_early_interrupt

if __name__ == "__main__":
    exit_on_early_interrupt()
    from lm.cli.parser import run

    from .command_line import main

    sys.exit(run(main))
