"""`python -m lm`: the same as the `lm` command."""

from lm.cli.start import script

if __name__ == "__main__":
    script()
