"""Train a recurrent language model.

lm train                                 two minutes on Python's own library
lm train my.txt --max-time 10m
lm train --resume                        continue the newest run
torchrun --nproc-per-node 2 -m lm train  two processes; see docs/scaling.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lm.cli.parser import add_settings, make_parser
from lm.config.presets import describe
from lm.config.schema import GROUPS
from lm.config.settings import check_not_empty
from lm.distributed import joined_ranks
from lm.errors import UserError

_TITLES = {"data": "the text", "model": "the network", "training": "the recipe and its budget"}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of the command that were given. Exits with status 2 if they are invalid."""
    parser = make_parser("train", __doc__ or "")
    add = parser.add_argument
    add("text", nargs="*", metavar="TEXT", help="the same as --dataset TEXT")
    add("--preset", metavar="NAME", help=f"a named recipe, which other settings override: {describe()}")
    add("--config", metavar="FILE", help="read settings from a YAML file")
    add("--print-config", action="store_true", help="print the settings and exit")
    find_lr = "raise the learning rate for 200 steps, plot the loss in ./find-lr.svg and suggest a rate"
    add("--find-lr", action="store_true", help=find_lr)
    add("--overwrite", action="store_true", help="replace an existing run of the same name")
    resume = "continue exactly where a run stopped (default DIR: the newest run in runs/)"
    add("--resume", nargs="?", const=None, metavar="DIR", help=resume)
    for group, config_class in GROUPS.items():
        add_settings(parser, config_class, _TITLES[group])
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_intermixed_args(given[:end])
    # What follows `--` are texts; `parse_intermixed_args` takes those that begin with a dash for flags.
    if texts := [*vars(options).pop("text", []), *given[end + 1 :]]:
        if "dataset" in options:
            raise UserError(f"{texts[0]} and --dataset both name the text: use one of the two.")
        options.dataset = texts
    check_not_empty(vars(options))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Raises UserError."""
    with joined_ranks() as ranks:
        options = vars(parse(arguments))
        ranks.check_same({"--resume": "resume" in options}, "start all ranks with the same command.")
        from lm.training.launch import launch  # imports torch, for which --help should not wait

        ended = launch(options, ranks)
        return 128 + ended.signal if ended and ended.signal else 0
