"""`generate.py --interactive`: the next tokens with their probabilities, picked by hand in a terminal."""

from __future__ import annotations

import sys
from typing import Any

from lm.escaping import printable
from lm.language_model import LanguageModel
from lm.session import Session

HELP = """\
  1-9       take that token                 text  write it (in quotes if it is a number or a command)
  Enter     let the model write 40 tokens   g N   let it write N tokens
  u, u N    take back the last, or N        n     show twice as many of the next tokens
  q         end                             ?     this help"""
_SHOWN = 9
_WRITTEN = 40


def interact(model: LanguageModel, prompt: str, *, seed: int, max_new_tokens: int, **settings: Any) -> int:
    """Read commands from standard input until its end; the text goes to standard output at last."""
    session = model.session()
    session.feed(prompt, unknown=settings.pop("unknown", "replace"))
    steps = [len(session)]  # what each command made of the text, for `u`
    shown = _SHOWN
    print(HELP, file=sys.stderr)
    while True:
        _show(session, shown)
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            break
        before = len(session)
        word, _, rest = line.partition(" ")
        count = int(rest) if rest.isdigit() else None
        if line == "q":
            break
        if line == "?":
            print(HELP, file=sys.stderr)
        elif line == "n":
            shown = min(2 * shown, model.tokenizer.vocab_size)
        elif word == "u" and (not rest or count):
            _take_back(session, steps, count)
            before = len(session)
        elif line == "" or (word == "g" and count):
            _write(session, seed + before, count or _WRITTEN, settings)
        elif line.isdigit() and 1 <= int(line) <= shown:
            session.add(session.next(shown)[int(line) - 1][1])
        else:
            quoted = len(line) > 1 and line[0] == line[-1] == '"'
            session.feed(line[1:-1] if quoted else line)
        if len(session) != before:
            steps.append(before)
    print(printable(session.text) if sys.stdout.isatty() else session.text)
    return 0


def _write(session: Session, seed: int, count: int, settings: dict[str, Any]) -> None:
    for _ in session.sample(seed=seed, max_new_tokens=count, **settings):
        pass


def _take_back(session: Session, steps: list[int], count: int | None) -> None:
    if count is None:
        count = len(session) - steps.pop() if len(steps) > 1 else 0
    session.rewind(min(count, len(session)))


def _show(session: Session, count: int) -> None:
    """The end of the text, and what may come next with a bar for each probability."""
    lines = printable(session.text[-600:]).splitlines()[-8:]
    print("\n".join(["", *lines]) + "▏", file=sys.stderr)
    for number, (name, _, probability) in enumerate(session.next(count), start=1):
        bar = "█" * round(20 * probability)
        print(f"  {number:2}  {printable(repr(name)):12} {probability:7.2%}  {bar}", file=sys.stderr)
