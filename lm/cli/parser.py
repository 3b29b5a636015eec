"""What the scripts share: flags made from the settings, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence

from lm.config.schema import TrainingConfig
from lm.config.settings import settings_of
from lm.errors import UserError
from lm.invocation import command


class HelpFormatter(argparse.HelpFormatter):
    """Help that keeps the description's line breaks and names each flag's value once."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=100)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of the subcommand `name`, whose result holds only the flags that were given."""
    prog = command(name)
    return argparse.ArgumentParser(
        prog=prog,
        # Not in `torchrun ... -m lm train`.
        description=re.sub(rf"(?<!-m )lm {name}\b", prog, description),
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )


def add_device(parser: argparse.ArgumentParser, precisions: Sequence[str], what: str) -> None:
    """Add --device and --precision to a command that runs a trained model."""
    device = settings_of(TrainingConfig)["device"]
    add, devices = parser.add_argument, "|".join(device.rule.choices)
    device_help = "device to run on (default: auto)"
    add("--device", type=device.check, metavar=devices, default="auto", help=device_help)
    add("--precision", choices=precisions, default="fp32", help=f"precision of {what} (default: fp32)")


def add_settings(
    parser: argparse.ArgumentParser, config_class: type, title: str, names: Iterable[str] | None = None
) -> None:
    """Add one flag for every setting of `config_class`, or for those of these `names`."""
    group = parser.add_argument_group(title)
    settings = settings_of(config_class)
    for name in names or settings:
        setting = settings[name]
        rule, default = setting.rule, setting.default
        help_line = f"{rule.help}{rule.flag_help}".replace("%", "%%")
        if setting.type is bool:
            action = argparse.BooleanOptionalAction if default is True or name == "tie" else "store_true"
            group.add_argument(setting.flag, action=action, help=help_line)
            continue
        if default not in (None, ""):
            help_line += f" (default: {', '.join(default) if setting.type is tuple else default})"
        metavar = rule.metavar or "|".join(rule.choices) or name.upper()
        if setting.type is tuple and not rule.parse:  # the values of a repeated flag are checked together
            group.add_argument(setting.flag, action="append", metavar=metavar, help=help_line)
        else:
            group.add_argument(setting.flag, type=setting.check, metavar=metavar, help=help_line)


def run(main: Callable[[], int]) -> int:
    """Call `main`; a UserError becomes one line on standard error and exit status 2."""
    # Characters missing from the locale's encoding are written as \u4e2d, as Python's errors are.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the pipe (`| head`) has closed it. Without this, Python reports it again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
