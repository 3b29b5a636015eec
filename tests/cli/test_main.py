"""The `lm` command and the scripts of a checkout."""

import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, called


@pytest.mark.parametrize(
    "script",
    [
        *(["train.py"], ["generate.py"], ["-m", "app"]),
        *(["-m", "lm", "evaluate"], ["-m", "lm", "export"], ["-m", "lm"]),
    ],
)
def test_help_is_fast_and_does_not_import_torch(script):
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *script, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "usage:" in result.stdout
    assert not {"torch", "datasets", "gradio"} & {
        line.split("|")[-1].strip() for line in result.stderr.splitlines()
    }
    assert time.perf_counter() - begin < 2  # on a busy machine; 0.1 s on an idle one


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (
            *("main", []),
            "name a command: train, generate, evaluate, export, app, serve, data; see lm --help.",
        ),
        ("main", ["trian"], "there is no command 'trian'; did you mean 'train'?"),
        ("main", ["x"], "there is no command 'x'."),
        ("main", ["--versoin"], "unrecognized arguments: --versoin; did you mean '--version'?"),
        ("main", ["--nonsense"], "unrecognized arguments: --nonsense; see lm --help."),
        ("evaluate", ["m", "--datset=x"], "unrecognized arguments: --datset=x; did you mean '--dataset'?"),
        (
            *("generate", ["--num-samples", "x"]),
            "argument --num-samples: must be a whole number from 1 to 100,000, got 'x';"
            " see lm generate --help.",
        ),
        (
            *("app.command_line", ["--port", "abc"]),
            "argument --port: must be a whole number from 1 to 65,535, got 'abc'; see lm app --help.",
        ),
    ],
)
def test_typos_are_answered_in_one_line(command, arguments, message):
    result = called(command, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
