"""Standard streams that are closed, full or broken: one line on standard error, and an exit status."""

import re
import resource
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SMALL, metrics, our_environment, some_text
from tests.processes import forking_python

FULL = "error: cannot write to standard output: No space left on device.\n"
CLOSED = "error: cannot write to standard output: it is closed.\n"
GENERATE = "generate.py pretrained --length 3 --seed 1"
EVALUATE = "-m lm evaluate pretrained --dataset new.txt"
QUICK = ("generate.py --help", "-m lm --version", "-m lm data info", "-m lm")
TRAIN = "train.py --dataset new.txt --steps 3 --hidden-size 8 --out run --overwrite"


@pytest.fixture
def shell(tmp_path):
    """Runs a command in a shell, for its redirections. Scripts are ours; those that import torch are forked,
    unless they get options of `subprocess.run`."""
    (tmp_path / "new.txt").write_text(some_text(2000))

    def run(arguments, redirections, **options):
        quick = options or arguments in QUICK
        arguments = re.sub(r"^(\w+\.py)", rf"{ROOT}/\1", arguments)
        command = f"'{sys.executable if quick else forking_python()}' {arguments} {redirections}"
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=our_environment(), text=True, capture_output=True,
            timeout=120, **options,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("command", QUICK)
@pytest.mark.parametrize(("redirections", "message"), [("> /dev/full", FULL), (">&-", CLOSED)])
def test_output_that_cannot_be_written_is_one_line(shell, command, redirections, message):
    result = shell(command, redirections)
    assert result.returncode == 2
    if command == "-m lm":  # has nothing to write
        message = (
            "error: name a command: train, generate, evaluate, export, app, serve, data; see lm --help.\n"
        )
    assert result.stderr == message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "redirections", "message"),
    [
        (GENERATE, "> /dev/full", FULL),
        (f"{GENERATE} --json", ">&- <&-", CLOSED),
        (EVALUATE, ">&- <&-", CLOSED),
        (f"{EVALUATE} --per-token -", "> /dev/full", FULL),
        (TRAIN, "> /dev/full", FULL),
    ],
)
def test_results_that_cannot_be_written_are_one_line(shell, command, redirections, message):
    result = shell(command, redirections)
    assert result.returncode == 2
    assert result.stderr.endswith(message) and result.stderr.count("error") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["<&-", "<&- 2>&-", "2> /dev/full"])
def test_closed_streams_that_are_not_needed_change_nothing(shell, redirections):
    expected = shell(GENERATE, "")
    result = shell(GENERATE, redirections)
    assert (result.returncode, result.stdout) == (0, expected.stdout)
    assert re.fullmatch(r"3 tokens in .*, seed 1\n" if "2>" not in redirections else "", result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [f"{GENERATE} --prompt-file -", f"{GENERATE} --interactive", TRAIN.replace("new.txt", "-")]
)
def test_closed_standard_input_is_one_line(shell, command):
    result = shell(command.replace("--length 3", ""), "<&-")
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.endswith("error: cannot read standard input: it is closed.\n")
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_ends_the_command_quietly(shell):
    result = shell(GENERATE.replace("3", "100000"), "| head -c 9")
    assert len(result.stdout) == 9 and not result.stderr


def test_an_error_for_text_of_several_lines_is_one_line(shell):
    result = shell("generate.py", "'no\nwhere'")
    assert (result.returncode, result.stderr) == (2, "error: there is no model folder 'no\\nwhere'.\n")
    result = shell("generate.py", "--length 'a\nb'")
    assert result.returncode == 2 and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_training_outlives_its_output(shell, tmp_path):
    """Standard output is a file that reaches the largest allowed size after the first step."""
    limit = 200_000
    (tmp_path / "log").write_text("x" * (limit - 1500))
    result = shell(
        TRAIN.replace("--steps 3", f"--steps 60 --eval-every 5 {' '.join(SMALL)}"),
        ">> log",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (tmp_path / "log").stat().st_size == limit
    assert (result.returncode, result.stderr) == (
        2,
        "error: cannot write to standard output: File too large.\n",
    )
    assert metrics(tmp_path / "run")[-1]["step"] == 60
