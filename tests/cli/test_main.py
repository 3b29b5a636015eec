"""The `lm` command and the scripts of a checkout."""

import re
import subprocess
import sys
import time

import pytest

from lm.cli import train
from lm.cli.main import COMMANDS
from lm.config.schema import GROUPS, SamplingConfig, SearchConfig
from lm.config.settings import settings_of
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
        ("main", ["x"], "there is no command 'x'; see lm --help."),
        ("data", [], "the following arguments are required: info|clear; see lm data --help."),
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
        (
            *("main", ["generate", "--prompt", "-x"]),
            "argument --prompt: expected one argument (if its value begins with a dash, write"
            " --prompt=VALUE); see lm generate --help.",
        ),
    ],
)
def test_typos_are_answered_in_one_line(command, arguments, message):
    result = called(command, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize("flags", [[], ["--seed", "7"]])
def test_texts_after_two_dashes_may_begin_with_a_dash(flags):
    result = called("main", "train", *flags, "--print-config", "a.txt", "--", "-b.txt", "--lr")
    assert result.stdout.startswith("dataset:\n- a.txt\n- -b.txt\n- --lr\n")
    assert "there is no file or folder '-b.txt'" in called("main", "train", *flags, "--", "-b.txt").stderr


def help_of(name):
    flags = ["--api", "--help"] if name == "serve" else ["--help"]
    result = called({"app": "app.command_line", "serve": "app.command_line"}.get(name, name), *flags)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_help_fits_the_terminal(name, monkeypatch):
    for columns, widest in ((80, 80), (300, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert max(map(len, help_of(name).splitlines())) <= widest


@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_help_breaks_no_name_at_a_hyphen(name, monkeypatch):
    """`pip install 'recurrent-lm[mcp]'` can be copied."""
    for columns in (80, 102):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert not re.search(r"\w-$", help_of(name), re.MULTILINE)


@pytest.mark.parametrize("started", ["lm/__main__.py", "train.py", "elsewhere/lm"])
def test_examples_in_the_help_have_their_explanations_in_one_column(started, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(ROOT / started)])
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    examples = re.findall(r"^(?:python|lm|torchrun) .*?  +(?=\S)", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 3 and len({*map(len, examples)}) == 1


@pytest.mark.parametrize(
    ("name", "classes"), [("train", [*GROUPS.values()]), ("generate", [SamplingConfig, SearchConfig])]
)
def test_help_lists_the_default_and_the_range_of_each_setting(name, classes):
    shown = re.split(r"\n  (?=--)", help_of(name))
    for setting in (each for group in classes for each in settings_of(group).values()):
        (text,) = (" ".join(each.split()) for each in shown if re.match(rf"{setting.flag}[ ,\n]", each))
        if setting.default is True:
            assert "(default: on)" in text
        elif setting.rule.lowest is not None:
            assert f"{setting.rule.range.removeprefix('in ')})" in text


@pytest.mark.parametrize(
    ("flag", "range"),
    [("--length", "1, 1000000000"), ("--num-samples", "1, 100000"), ("--seed", f"0, {2**64 - 1}")],
)
def test_help_lists_the_range_of_other_numbers(flag, range):
    assert re.search(rf"{flag} N [^)]*range: \[{range}\]\)", " ".join(help_of("generate").split()))
