"""What the scripts share: flags made from the settings, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NoReturn

from lm.config.schema import GROUPS, TrainingConfig
from lm.config.settings import flag_of, settings_of
from lm.console import streams
from lm.console.escaping import printable
from lm.console.invocation import command
from lm.console.wording import similar, suggesting
from lm.errors import UserError, one_line

MODEL = "a run, a saved folder, a Hub id (owner/name or owner/name@revision) or 'pretrained'"
_WIDEST = 100  # columns of a help
_LONGEST = 600  # characters of an error


class HelpFormatter(argparse.HelpFormatter):
    """Help that keeps the description's line breaks and names each flag's value once."""

    def __init__(self, prog: str):
        columns = shutil.get_terminal_size(fallback=(_WIDEST + 2, 24)).columns
        super().__init__(prog, max_help_position=34, width=min(columns - 2, _WIDEST))  # 2 as in argparse

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text.strip():
            return super()._fill_text(text, width, indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Not after a hyphen: in `pip install 'recurrent-lm[mcp]'` that is another command.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            flag = message.removeprefix("argument ").partition(":")[0]
            message += f" (if its value begins with a dash, write {flag}=VALUE)"
        _, unknown, arguments = message.partition("unrecognized arguments: ")
        flag = arguments.partition(" ")[0].partition("=")[0]
        near = similar(flag, self._option_string_actions) if unknown else None
        print_error(message + (suggesting(near) if near else f"; see {self.prog} --help."))
        raise SystemExit(2)


def make_parser(name: str, description: str) -> Parser:
    """The parser of the subcommand `name`, whose result holds only the flags that were given."""
    prog = command(name)
    # Not in `torchrun ... -m lm train`.
    description = re.sub(rf"(?<!-m )lm {name}\b", prog, description)
    return Parser(
        prog=prog,
        description=_aligned(description),
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )


def _aligned(description: str) -> str:
    """The description with the explanations of its examples in one column again."""
    rows = [line.partition("  ") for line in description.splitlines()]
    width = max(len(example) for example, space, _ in rows if space)
    return "\n".join(f"{row[0]:{width}}  {row[2].lstrip()}" if row[1] else row[0] for row in rows)


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
        # --no-NAME turns off what a preset or a file turns on.
        if setting.type is bool and config_class in GROUPS.values():
            help_line += f" (default: {'on' if default else 'off'})"
            group.add_argument(setting.flag, action=argparse.BooleanOptionalAction, help=help_line)
            continue
        if setting.type is bool:
            group.add_argument(setting.flag, action="store_true", help=help_line)
            continue
        notes = []
        if default not in (None, ""):
            notes.append(f"default: {', '.join(default) if setting.type is tuple else default}")
        if rule.lowest is not None:
            notes.append(rule.range.replace("in ", "range: "))
        help_line += f" ({'; '.join(notes)})" if notes else ""
        metavar = rule.metavar or "|".join(rule.choices) or name.rpartition("_")[2].upper()
        if setting.type is tuple and not rule.parse:  # the values of a repeated flag are checked together
            group.add_argument(setting.flag, action="append", metavar=metavar, help=help_line)
        else:
            group.add_argument(setting.flag, type=setting.check, metavar=metavar, help=help_line)


def integer_type(minimum: int, maximum: int) -> Callable[[str], int]:
    """An argument type: whole numbers in this range."""

    def number(text: str) -> int:
        with contextlib.suppress(ValueError):  # Python refuses to read very long numbers
            if minimum <= int(text) <= maximum:
                return int(text)
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {minimum:,} to {maximum:,}, got '{text}'"
        )

    return number


def check_requirements(given: Collection[str], needed: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Raise UserError if a flag has no effect because none of those that it needs is among the `given`."""
    for name, others in needed:
        if name in given and not any(other in given for other in others):
            raise UserError(f"{flag_of(name)} requires {' or '.join(map(flag_of, others))}.")


def run(main: Callable[[], int]) -> int:
    """Call `main`, flush standard output and return the exit status. What the user can fix, including output
    that cannot be written, becomes one line on standard error and exit status 2."""
    output = streams.prepare()
    status, error = _status(main)
    try:
        sys.stdout.flush()
    except OSError as raised:
        error = error or raised
    if output and output.error:
        error = output.error
        output.discard()
    if status or error is None:
        return status
    if isinstance(error, BrokenPipeError):  # the reader of the pipe (`| head`) has closed it
        return 141
    if output and output.error:
        print_error(f"cannot write to standard output: {streams.reason(error)}.")
    else:
        problem = error.strerror or one_line(error)
        print_error(f"cannot use {error.filename}: {problem}." if error.filename else f"{problem}.")
    return 2


def _status(main: Callable[[], int]) -> tuple[int, OSError | None]:
    """The exit status of `main`, and an error that it has not handled."""
    try:
        return main(), None
    except SystemExit as stop:  # from argparse, which has printed help or an error
        return stop.code if isinstance(stop.code, int) else 0, None
    except UserError as error:
        print_error(str(error))
        return 2, None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130, None
    except OSError as error:
        return 0, error


def print_error(message: str) -> None:
    """Print one line on standard error, shortened in the middle if it quotes something long."""
    line = printable(message).replace("\n", "\\n").encode("utf-8", "backslashreplace").decode()
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(f"error: {line}", file=sys.stderr)
