"""A run has one owner: the process that trains it, until that ends or is no longer heard from."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest

from app.jobs.queue import JobQueue
from app.registry import ModelRegistry
from app.tabs.models.editing import Editing
from lm.cli.train import main
from lm.errors import UserError
from lm.storage import run_lock
from lm.storage.run_lock import STALE, check_free, claimed, lock_of
from tests.conftest import ROOT, SMALL, metrics, script, some_text, started
from tests.end_to_end.test_resume import step_of

RECIPE = [*SMALL, "--dataset", "boat.txt", "--save-every", "10"]
HOST = re.escape(socket.gethostname())


@pytest.fixture(autouse=True)
def here(here):
    (here / "boat.txt").write_text(some_text(20_000))
    return here


@pytest.fixture
def trainings():
    """A function that starts `lm train` and waits for its first checkpoint."""
    with ExitStack() as ends:

        def start(folder, *arguments):
            process = started("train.py", *arguments, cwd=folder, stdout=subprocess.PIPE)
            ends.callback(process.wait)
            ends.callback(process.kill)
            deadline = time.monotonic() + 60
            while not step_of(folder / "r") and time.monotonic() < deadline:
                time.sleep(0.005)
            return process

        yield start


@pytest.mark.slow
def test_a_run_in_training_is_not_resumed_replaced_or_deleted(here, trainings):
    assert main([*RECIPE, "--steps", "300", "--out", "alone", "--quiet"]) == 0
    process = trainings(here, *RECIPE, "--steps", "300", "--out", "r")
    process.send_signal(signal.SIGSTOP)
    try:
        commands = [["--resume", "r"], ["--resume"], [*RECIPE, "--out", "r"]]
        commands.append([*RECIPE, "--out", "r", "--overwrite"])
        (here / "runs").symlink_to(here)
        for command in commands:
            result = script("train.py", *command, cwd=here)
            assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
            owner = f"is being trained by process {process.pid} on {HOST}: wait until it has finished"
            assert re.match(rf"error: \S*r {owner}, or stop it first\.$", result.stderr), result.stderr
        registry = ModelRegistry([here])
        for name in registry.folders():
            fingerprint = registry.fingerprint(name)
            editing = Editing.__new__(Editing)
            editing.models, editing.jobs = registry, JobQueue(here)
            for change in (registry.delete, lambda *rest: registry.rename(rest[0], "new", *rest[1:])):
                if name == "r":
                    with pytest.raises(UserError, match=owner):
                        change(name, fingerprint, editing._is_busy)
    finally:
        process.send_signal(signal.SIGCONT)
    process.stdout.read()
    assert process.wait() == 0
    steps = [record["step"] for record in metrics(here / "r")[:-1]]
    assert steps == sorted(set(steps))
    weights = [(here / run / "model.safetensors").read_bytes() for run in ("alone", "r")]
    assert weights[0] == weights[1]
    assert not lock_of(here / "r").exists()


def test_a_killed_owner_is_succeeded_at_once(here, trainings):
    process = trainings(here, *RECIPE, "--steps", "100000", "--out", "r")
    with pytest.raises(UserError, match=f"process {process.pid} on {HOST}"):
        check_free(here / "r")
    process.kill()
    process.wait()
    assert json.loads(lock_of(here / "r").read_text())["process"] == process.pid
    check_free(here / "r")
    assert main(["--resume", "r", "--steps", str(step_of(here / "r") + 5), "--quiet"]) == 0
    assert main([*RECIPE, "--steps", "5", "--out", "r", "--overwrite", "--quiet"]) == 0


@pytest.mark.slow
def test_several_ranks_are_one_owner(here):
    command = ["--standalone", "--nproc-per-node", 2, ROOT / "train.py", *RECIPE, "--steps", 100_000]
    process = started("-m torch.distributed.run", *command, "--device", "cpu", "--out", "r", cwd=here)
    try:
        deadline = time.monotonic() + 120
        while not step_of(here / "r") and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(UserError, match=f"r is being trained by process \\d+ on {HOST}"):
            main(["--resume", "r"])
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_of_many_that_overwrite_a_run_one_trains(here):
    command = [*RECIPE, "--steps", "100000", "--out", "r", "--overwrite", "--quiet"]
    processes = [started("train.py", *command, cwd=here, stderr=subprocess.PIPE) for _ in range(4)]
    deadline = time.monotonic() + 120
    while sum(process.poll() is None for process in processes) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (owner,) = (process for process in processes if process.poll() is None)
    assert json.loads(lock_of(here / "r").read_text())["process"] == owner.pid
    owner.kill()
    owner.wait()
    for process in set(processes) - {owner}:
        assert process.wait() == 2
        assert re.match("error: r is (being trained by|not a run)", process.stderr.read())


def make_run(here):
    assert main([*RECIPE, "--steps", "10", "--out", "r"]) == 0


def foreign_lock(folder, age, process=77, host="elsewhere", boot="0"):
    """A lock as another machine has written it."""
    lock = lock_of(folder)
    lock.write_text(json.dumps({"process": process, "host": host, "boot": boot}))
    os.utime(lock, (time.time() - age,) * 2)


def test_another_machine_is_obeyed_while_it_is_heard_from(here):
    make_run(here)
    foreign_lock(here / "r", STALE / 2)
    remedy = "wait until it has finished, or stop it first; if it was killed, try again in 60 seconds"
    with pytest.raises(UserError, match=rf"trained by process 77 on elsewhere: {remedy}\.$"):
        main(["--resume", "r", "--steps", "20"])
    with pytest.raises(UserError, match="trained by process 77 on elsewhere"):
        main([*RECIPE, "--out", "r", "--overwrite"])
    assert lock_of(here / "r").exists()


@pytest.mark.slow
def test_a_stale_lock_of_another_machine_is_reported_and_replaced(here, capsys):
    make_run(here)
    foreign_lock(here / "r", 3600)
    check_free(here / "r")
    assert main(["--resume", "r", "--steps", "20"]) == 0
    warning = r"warning: r had a stale lock: process 77 on elsewhere, .* the lock 3,60\d seconds before\."
    assert re.search(warning, capsys.readouterr().out)
    foreign_lock(here / "r", 3600)
    assert main([*RECIPE, "--steps", "5", "--out", "r", "--overwrite"]) == 0
    assert re.search(warning, capsys.readouterr().out)


@pytest.mark.slow
def test_a_lock_that_a_server_still_holds_for_a_lost_machine_can_be_deleted(here):
    make_run(here)
    lock_of(here / "r").touch()
    file = run_lock.locks.acquire(lock_of(here / "r"))
    foreign_lock(here / "r", 7200)
    with pytest.raises(UserError, match=r"stale lock: process 77 on elsewhere.*delete r/training/lock"):
        main(["--resume", "r", "--steps", "20"])
    lock_of(here / "r").unlink()
    assert main(["--resume", "r", "--steps", "20", "--quiet"]) == 0
    os.close(file)


@pytest.mark.slow
@pytest.mark.parametrize("host", [socket.gethostname(), "a container of this machine"])
def test_what_a_killed_process_of_this_machine_leaves_is_ignored(here, host):
    make_run(here)
    foreign_lock(here / "r", 0, host=host, boot=run_lock._this_process().boot)
    check_free(here / "r")
    assert main(["--resume", "r", "--steps", "20", "--quiet"]) == 0


@pytest.mark.slow
def test_a_lock_without_sense_is_no_lock(here):
    make_run(here)
    texts = ("", "{", "[]", "9", '{"process": []}', "[" * 5000, '{"process": 1e999}')
    for steps, text in enumerate(texts, start=11):
        lock_of(here / "r").write_text(text)
        check_free(here / "r")
        assert main(["--resume", "r", "--steps", str(steps), "--quiet"]) == 0


def test_the_lock_is_renewed_while_it_is_held(here, monkeypatch):
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.05)
    (here / "r/training").mkdir(parents=True)
    with claimed(here / "r"):
        os.utime(lock_of(here / "r"), (0, 0))
        time.sleep(1)
        assert time.time() - lock_of(here / "r").stat().st_mtime < 60
    assert not lock_of(here / "r").exists()


def test_where_files_cannot_be_locked_the_owner_that_is_named_is_obeyed(here, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for name in ("acquire", "is_held"):
        monkeypatch.setattr(run_lock.locks, name, unsupported)
    (here / "r/training").mkdir(parents=True)
    named = rf"trained by process {os.getpid()} on {HOST}: .* try again in 60 seconds"
    with claimed(here / "r"):
        with pytest.raises(UserError, match=named), claimed(here / "r"):
            pass
        with pytest.raises(UserError, match=named):
            check_free(here / "r")
    check_free(here / "r")


def test_threads_that_claim_a_run_take_turns(here):
    (here / "r/training").mkdir(parents=True)
    inside, most, claims = [], [], []

    def work():
        for _ in range(30):
            try:
                with claimed(here / "r"):
                    inside.append(1)
                    most.append(len(inside))
                    claims.append(1)
                    time.sleep(0.002)
                    inside.pop()
            except UserError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(claims) > 10


def test_a_run_that_is_moved_while_it_trains_leaves_the_new_one_alone(here):
    (here / "r/training").mkdir(parents=True)
    with claimed(here / "r"):
        shutil.move("r", "moved")
        (here / "r/training").mkdir(parents=True)
        with claimed(here / "r"):
            pass
        foreign_lock(here / "r", 0)
    assert lock_of(here / "r").exists()
    check_free(here / "moved")
