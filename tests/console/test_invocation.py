"""Commands in messages can be pasted into a shell."""

import shlex
from pathlib import Path

import pytest

from lm.console.invocation import called_from_python, quoted, resume_command


@pytest.mark.parametrize("path", ["runs/a", "my run", "it's", "a\nb", "$HOME", "~nobody"])
def test_a_path_is_quoted_where_the_shell_needs_it(path):
    assert shlex.split(quoted(Path(path))) == [path]


def test_a_path_that_begins_with_a_dash_is_no_flag():
    assert quoted(Path("-run")) == "./-run"
    assert quoted(Path("-my run/a")) == "'./-my run/a'"
    assert resume_command(Path("-run")).endswith(" --resume ./-run")
    assert quoted("--steps") == "--steps"  # an argument


def test_in_python_a_run_is_resumed_by_its_name():
    with called_from_python():
        assert resume_command(Path("-run")) == "lm.train(resume='-run')"
