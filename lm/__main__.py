"""`python -m lm`: the same as the `lm` command."""

from lm.cli.main import script

if __name__ == "__main__":
    script()
