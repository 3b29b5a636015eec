"""torchrun with the real script: a rank is killed, one line says how to continue, and that works."""

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
    """The processes that torchrun started, by rank."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    of = {pid: Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in children}
    return {name: int(pid) for pid in of for name in of[pid] if name.startswith("RANK=")}


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_one_process_resumes(tmp_path, text_file, monkeypatch, capsys):
    command = ["--dataset", text_file, *SMALL, "--steps", 600, "--save-every", 10]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += [str(ROOT / "train.py"), *map(str, command), "--out", "r"]
    environment, pipe = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    process = subprocess.Popen(torchrun, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
    while step_of(tmp_path / "r") < 20:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    ranks = rank_processes(process)
    os.kill(ranks["RANK=0"], signal.SIGKILL)
    killed = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - killed < 10
    assert process.returncode != 0
    assert "2 ranks" in out
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert line.endswith("continue from its last checkpoint with --resume r, on any number of ranks.")
    assert f"{ROOT}/lm" not in err  # no traceback of ours
    for pid in ranks.values():
        assert not Path(f"/proc/{pid}").exists()

    monkeypatch.chdir(tmp_path)
    assert main(["--resume", "r"]) == 0  # on one process
    assert "Resuming from step " in capsys.readouterr().out
    assert step_of(tmp_path / "r") == 600
