"""The `lm` command and the scripts of a checkout."""

import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT


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
