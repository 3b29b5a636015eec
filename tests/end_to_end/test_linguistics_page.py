"""docs/linguistics.md: its commands and its Python, run in their order, print what the page shows."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import called

PAGE = Path(__file__).parents[2] / "docs" / "linguistics.md"
BLOCK = re.compile(r"^```(console|bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+")


def steps():
    """Each command of the page with the output that it shows, or None; and each block of Python."""
    for language, text in BLOCK.findall(PAGE.read_text("utf-8")):
        if language == "console":
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = step.partition("\n")
                yield command, output
        elif language == "bash":
            yield from ((line, None) for line in text.splitlines())
        else:
            yield "python", text


def run(command):
    """The standard output of a command."""
    command, _, limit = command.partition(" | head -")
    program, *arguments = shlex.split(command.removesuffix(" 2>/dev/null"))
    assert program == "lm", command
    result = called(*arguments)
    assert result.returncode == 0, result.stderr
    return "".join(result.stdout.splitlines(keepends=True)[: int(limit) if limit else None])


def test_what_the_page_says_is_what_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for command, shown in steps():
        if command == "python":
            exec(shown, names)
        elif command.startswith("cat "):
            Path(command.removeprefix("cat ")).write_text(shown, "utf-8")
        else:
            output = run(command)
            if shown is not None:
                assert NUMBER.sub("", output) == NUMBER.sub("", shown)
                numbers = [[*map(float, NUMBER.findall(text))] for text in (output, shown)]
                assert numbers[0] == pytest.approx(numbers[1], abs=2e-3)  # of other processors
