"""python -m lm evaluate|data ..."""

import sys

from lm.cli import data, evaluate
from lm.cli.parser import run

if __name__ == "__main__":
    sys.exit(run({"evaluate": evaluate.main, "data": data.main}[sys.argv.pop(1)]))
