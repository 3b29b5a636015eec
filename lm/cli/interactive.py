"""`lm generate --interactive`: choose the next tokens in a terminal, with their probabilities shown."""

from __future__ import annotations

import re
import sys
from typing import Any

from lm.cli.parser import print_error
from lm.cli.warnings import warn_about_unknown_text
from lm.console.escaping import printable
from lm.console.streams import reason
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.session import Session

HELP = """\
  1-9       choose this token      text  append this text (in quotes if it is a number or a command)
  Enter     generate 40 tokens     g N   generate N tokens
  u         undo the last command  u N   remove the last N tokens
  n         list twice as many     q     quit
  ?         show this help"""
_LISTED = 9  # next tokens
_GENERATED = 40  # tokens


def interact(
    model: LanguageModel, prompt: str, *, seed: int, unknown: str = "replace", **settings: Any
) -> int:
    """Run commands from standard input until it ends, then print the text, whatever ends it. Returns the exit
    status.

    A command that is not possible prints an error, and Ctrl-C ends one that generates. `unknown` applies to
    the prompt and to typed text.
    """
    session = model.session()
    session.feed(prompt, unknown=unknown)
    print(HELP, file=sys.stderr)
    try:
        _run_commands(model, session, seed, unknown, settings)
    finally:
        if text := session.text:
            print(printable(text) if sys.stdout.isatty() else text)
    return 0


def _run_commands(
    model: LanguageModel, session: Session, seed: int, unknown: str, settings: dict[str, Any]
) -> None:
    """Run commands until `q` or the end of standard input."""
    lengths = [len(session)]  # before each command, for `u`
    listed = _LISTED
    while True:
        shown = _show(session, listed)
        try:
            line = _command()
        except EOFError:
            return
        before = len(session)
        word, _, rest = line.partition(" ")
        count = _number(rest)
        if line == "q":
            return
        try:
            if line == "?":
                print(HELP, file=sys.stderr)
            elif line == "n":
                listed = min(2 * listed, model.tokenizer.vocab_size)
            elif word in ("u", "g") and count == 0:
                raise UserError(f"'{line}' must have a number of at least 1.")
            elif word == "u" and (not rest or count):
                _undo(session, lengths, count)
                before = len(session)
            elif line == "" or (word == "g" and count):
                _generate(session, (seed + before) % 2**64, count or _GENERATED, settings)
            elif 1 <= (choice := _number(line) or 0) <= len(shown):
                session.add(shown[choice - 1])
            else:
                quoted = len(line) > 1 and line[0] == line[-1] == '"'
                text = line[1:-1] if quoted else line
                warn_about_unknown_text(model, text, unknown)
                session.feed(text, unknown=unknown)
        except UserError as error:
            print_error(str(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        if len(session) != before:
            lengths.append(before)


def _command() -> str:
    """The next line of standard input. Raises EOFError at its end, and UserError if it cannot be read."""
    try:
        line = input("> " if sys.stdin.isatty() else "")
        return line.encode("utf-8", "surrogateescape").decode()
    except UnicodeError as error:
        raise UserError("standard input is not UTF-8.") from error
    except OSError as error:
        raise UserError(f"cannot read standard input: {reason(error)}.") from error


def _number(text: str) -> int | None:
    """The number that `text` is, or None. Longer numbers are text."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _generate(session: Session, seed: int, count: int, settings: dict[str, Any]) -> None:
    for _ in session.sample(seed=seed, max_new_tokens=count, **settings):
        pass


def _undo(session: Session, lengths: list[int], count: int | None) -> None:
    """Remove `count` tokens, or what the last command appended, and forget the commands that are undone."""
    if count is None:
        count = len(session) - lengths.pop() if len(lengths) > 1 else 0
    session.rewind(min(count, len(session)))
    lengths[1:] = [length for length in lengths[1:] if length < len(session)]


def _show(session: Session, count: int) -> list[int]:
    """Print the end of the text and the next tokens, each with a bar for its probability. Returns these
    tokens."""
    lines = printable(session.text[-600:]).split("\n")[-8:]
    print("\n".join(["", *lines]) + "▏", file=sys.stderr)
    found = session.next(count)
    for number, (name, _, probability) in enumerate(found, start=1):
        bar = "█" * round(20 * probability)
        print(f"  {number:2}  {printable(repr(name)):12} {probability:7.2%}  {bar}", file=sys.stderr)
    return [token for _, token, _ in found]
