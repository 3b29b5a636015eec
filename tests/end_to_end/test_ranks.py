"""torchrun with the real script: a rank is killed, one line says how to go on, and that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.cli.train import main
from tests.conftest import ROOT, SMALL
from tests.end_to_end.test_resume import step_of


def rank_processes(torchrun):
    """The processes that torchrun has started, by their rank."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    of = {pid: Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in children}
    return {name: int(pid) for pid in of for name in of[pid] if name.startswith("RANK=")}


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_and_one_goes_on(tmp_path, text_file, monkeypatch, capsys):
    command = ["--dataset", text_file, *SMALL, "--steps", 600, "--save-every", 10, "--sample-every", 0]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*torchrun, str(ROOT / "train.py"), *map(str, command), "--out", "r"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while step_of(tmp_path / "r") < 20:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    ranks = rank_processes(process)
    os.kill(ranks["RANK=0"], signal.SIGKILL)
    killed = time.monotonic()
    said, complained = process.communicate(timeout=30)
    assert time.monotonic() - killed < 10
    assert process.returncode != 0
    assert "2 ranks" in said
    (line,) = (line for line in complained.splitlines() if line.startswith("error: "))
    assert line.endswith("go on from its last checkpoint by --resume r, on any number of ranks.")
    assert f"{ROOT}/lm" not in complained  # no traceback of ours
    for pid in ranks.values():
        assert not Path(f"/proc/{pid}").exists()

    monkeypatch.chdir(tmp_path)
    assert main(["--resume", "r"]) == 0  # on one process
    assert "Resuming from step " in capsys.readouterr().out
    assert step_of(tmp_path / "r") == 600
