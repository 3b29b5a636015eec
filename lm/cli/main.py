"""The `lm` command and its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import lm
from lm.cli.parser import HelpFormatter, Parser
from lm.console.wording import similar, suggesting
from lm.errors import UserError

# Each is imported only when it runs: `lm --help` should not wait for torch, nor `lm train` for gradio.
COMMANDS = {
    "train": ("lm.cli.train:main", "train a model, resume a run or fine-tune"),
    "generate": ("lm.cli.generate:main", "generate text with a model"),
    "evaluate": ("lm.cli.evaluate:main", "score a text: loss, perplexity, surprisal per token and word"),
    "export": ("lm.cli.export:main", "export a model to ONNX or to a web page"),
    "app": ("lm_studio.command_line:main", "open the web UI"),
    "serve": ("lm_studio.command_line:serve", "serve models over an OpenAI-compatible API"),
    "data": ("lm.cli.data:main", "show or clear the cache of tokenized text"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand named by the first argument and return its exit status."""
    parser = Parser(
        prog="lm",
        usage="lm [-h] [--version] COMMAND ...",
        description=(lm.__doc__ or "").partition("\n")[0],
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"recurrent-lm {lm.__version__}")
    names = "\n".join(f"  {name:10} {help}" for name, (_, help) in COMMANDS.items())
    parser.epilog = f"commands:\n{names}\n\n`lm COMMAND --help` lists the flags of a command."
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given[:1])  # argparse would drop a `--` after the command
    if options.command is None:
        parser.error(f"name a command: {', '.join(COMMANDS)}")
    if options.command not in COMMANDS:
        near = similar(options.command, COMMANDS)
        end = suggesting(near) if near else "; see lm --help."
        raise UserError(f"there is no command '{options.command}'{end}")
    return run_command(options.command, given[1:])


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one subcommand and return its exit status."""
    module, _, function = COMMANDS[name][0].partition(":")
    package = module.partition(".")[0]
    if find_spec(package) is None:  # a checkout that is not installed: lm_studio is its folder app/
        module = module.replace(package, "app", 1)
    return getattr(import_module(module), function)(list(arguments))
