"""`python -m app`: the same as `lm app`."""

import sys

from lm.cli.parser import run

from .command_line import main

if __name__ == "__main__":
    sys.exit(run(main))
