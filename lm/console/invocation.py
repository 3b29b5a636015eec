"""How the user started the program, so that messages name a command they can run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]  # the checkout, or site-packages
_IN_A_CHECKOUT = {
    "train": "python train.py",
    "generate": "python generate.py",
    "app": "python -m app",
    "serve": "python -m app --api",
}


def command(name: str) -> str:
    """The command line of the subcommand `name`: 'lm train', or in a checkout 'python train.py'."""
    started = Path(sys.argv[0]).resolve()
    if started == _ROOT / "lm" / "__main__.py":
        return f"python -m lm {name}"
    scripts = (_ROOT / "train.py", _ROOT / "generate.py")
    if started in scripts or _ROOT / "app" in started.parents:
        return _IN_A_CHECKOUT.get(name, f"python -m lm {name}")
    return f"lm {name}"


_in_python = ContextVar("in_python", default=False)


@contextmanager
def called_from_python() -> Iterator[None]:
    """In the block and this thread, the user has called `lm.train` rather than started `lm train`."""
    before = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(before)


def resume_command(folder: Path) -> str:
    """How to resume the run in a folder: 'lm train --resume runs/a', or "lm.train(resume='runs/a')"."""
    if _in_python.get():
        return f"lm.train(resume={str(folder)!r})"
    return f"{command('train')} --resume {quoted(folder)}"


def pip_install(extra: str) -> str:
    """The command that installs one of the optional dependencies in pyproject.toml."""
    return f"pip install {quoted(f'recurrent-lm[{extra}]')}"


def quoted(argument: object) -> str:
    """An argument of a command line as the user's shell needs it: in quotes if it has spaces. A path that
    would be read as a flag gets `./`; one such as `..` gets a slash, so that a sentence can end with it."""
    if isinstance(argument, Path) and str(argument).startswith("-"):
        argument = f"./{argument}"
    if isinstance(argument, Path) and (str(argument) == "." or argument.name == ".."):
        argument = f"{argument}/"
    if sys.platform == "win32":  # quotes for cmd.exe and PowerShell, which need none around brackets
        return subprocess.list2cmdline([str(argument)])
    return shlex.quote(str(argument))
