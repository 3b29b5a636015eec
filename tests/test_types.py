"""The types that mypy sees in a program that uses `lm`, although its names are imported on first use."""

import re
import subprocess
import sys

import pytest

from tests.conftest import our_environment

PROGRAM = """
import lm

model = lm.load("runs/a")
reveal_type(model)
reveal_type(lm.train("my.txt", cell="gru", on_step=lambda row: row["step"] < 3))
reveal_type(lm.evaluate(model, ["a", "b"]).perplexity)
reveal_type(model.score("a"))
reveal_type(model.score("a")[0].logprob)
reveal_type(model.score("a")[1:])
reveal_type(model.history)
reveal_type(model.folder)
reveal_type([piece.text for piece in model.stream("a")])
reveal_type(lm.Session(model))
lm.laod("runs/a")
"""
TYPES = [
    "lm.language_model.LanguageModel",
    "lm.language_model.LanguageModel",
    "float",
    "lm.evaluation.scores.Scores",
    "float",
    "lm.evaluation.scores.Scores",
    "list[dict[str, Any]]",
    "pathlib.Path | None",
    "list[str]",
    "lm.session.Session",
]


@pytest.mark.slow
def test_a_strict_program_is_checked(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "program.py"]
    result = subprocess.run(command, cwd=tmp_path, env=our_environment(), capture_output=True, text=True)
    assert re.findall(r'Revealed type is "(.*)"', result.stdout) == TYPES
    errors = [line for line in result.stdout.splitlines() if ": error: " in line]
    assert errors == ['program.py:15: error: Module has no attribute "laod"  [attr-defined]']
