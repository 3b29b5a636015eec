"""The process that starts the queued trainings one after the other, and the one that each of them is.

    python -m app.jobs.runner MODELS                start what is queued in MODELS/.jobs until nothing is
    python -m app.jobs.runner MODELS --job ID       be the training ID

The page only writes what is wanted into `.jobs` and sees to it that a runner is there. Each process has
a session of its own, so that a closed terminal, a restarted server or a killed one ends neither the
training nor the queue. Where the runner itself is killed, its training goes on; the next runner, which
any page on that folder starts as soon as something waits, sees its lock and waits for its end.

A training is `train.main`, called in its process. It is asked to pause or to stop through its job.json,
which it looks at a few times a second; it then sends itself SIGTERM, so no signal ever goes to a process
id that was told by a file. Before the loop begins, that ends it on the spot, which every file that is
being written withstands; in the loop it saves first (lm/training/signals.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

from lm.errors import UserError, one_line
from lm.files import write_text

from . import job as jobs, locks
from .job import Job, Store
from .recipe import resolved

_ROOT = Path(__file__).resolve().parents[2]  # of the packages
_EVERY = 0.25  # seconds
_NICENESS = 5  # who writes on the page shall not wait for a training


def command(*arguments: object) -> list[str]:
    """The command line that runs this module, or another one that is named by `-m`, with the Python and
    the files of this process, wherever it is started."""
    module = [] if arguments[:1] == ("-m",) else ["-m", f"{__package__}.runner"]
    # -P: modules are not looked for in the folder where it is started.
    return [sys.executable, "-P", *module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """For such a process."""
    own = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    if str(_ROOT) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # a checkout
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | own


def start_runner(store: Store, at_once: int) -> subprocess.Popen | None:
    """Start a runner in a session of its own, unless there is one. Raises OSError."""
    lock = locks.take(store.runner_lock)
    if lock is None:
        return None
    try:
        with open(store.folder / "runner.log", "w") as complaints:
            return subprocess.Popen(
                command(store.models, "--at-once", at_once, "--lock", lock),
                cwd=store.folder, env=environment(), pass_fds=[lock], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints,
            )  # fmt: skip
    finally:
        os.close(lock)  # it goes on being locked by the runner, which has it open too


def serve(store: Store, at_once: int, lock: int | None = None) -> None:
    """Start what is queued until nothing is, if no other runner does."""
    lock = locks.take(store.runner_lock) if lock is None else lock
    if lock is None:
        return
    children: dict[str, subprocess.Popen] = {}
    while True:
        for id in [id for id, child in children.items() if child.poll() is not None]:
            _tell_how_it_died(store, id, children.pop(id).returncode)
        with store.lock():
            known = jobs.in_order(store.all())
            waiting = [job for job in known if job.state == jobs.QUEUED]
            others = [j for j in known if j.id not in children and store.is_alive(j.id)]
            if not waiting and not children:
                os.close(lock)  # before anybody can add a job and see a runner who has just left
                return
            if waiting and len(children) + len(others) < at_once and (child := _start(store, waiting[0])):
                children[waiting[0].id] = child
        time.sleep(_EVERY)


def _start(store: Store, job: Job) -> subprocess.Popen | None:
    """Start a job's training, the lock of the jobs being held; None if it could not be."""
    folder = store.folder / job.id
    lock = locks.take(store.lock_of(job.id), patience=1.0)
    if lock is None:  # its last process is still leaving
        return None
    try:
        os.ftruncate(lock, 0)
        with open(store.log_of(job.id), "ab") as log:
            now = time.time()
            job = replace(job, state=jobs.RUNNING, asked=None, started=now, ended=None, message="")
            store.write(replace(job, log_from=log.tell()))
            return subprocess.Popen(
                command(store.models, "--job", job.id, "--lock", lock),
                # The job's folder: it has no folders in it, so `owner/name` names no file there.
                cwd=folder, env=environment(), pass_fds=[lock], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
    except OSError as error:
        message = f"It could not be started: {error.strerror}."
        store.write(replace(job, state=jobs.FAILED, ended=time.time(), message=message))
        return None
    finally:
        os.close(lock)


def _tell_how_it_died(store: Store, id: str, status: int) -> None:
    """Write down what only the parent of a process knows."""
    with store.lock():
        job = store.get(id)
        if job and job.state == jobs.INTERRUPTED and status < 0:
            name = signal.Signals(-status).name
            why = ": was there too little memory?" if name == "SIGKILL" else ""
            store.write(replace(job, message=f"It was ended by {name}{why} Resume it to go on."))


def train(store: Store, id: str, lock: int) -> int:
    """Be the training of a job, whose lock is held by the open file `lock`; the exit status."""
    os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    lower_priority(500)
    over = threading.Event()
    threading.Thread(target=_obey, args=(store, id, over), daemon=True).start()
    status, message = _trained(store, store.get(id))
    over.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # what comes now comes too late
    with store.lock():
        if job := store.get(id):
            store.write(jobs.ended(job, status, message))
    return status


def _trained(store: Store, job: Job) -> tuple[int, str]:
    """Call train.py; its exit status and, if it failed, why."""
    try:
        arguments = _arguments(store, job)
        from lm.cli import train as script

        return script.main(arguments), ""
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2, one_line(str(error), 500)
    except KeyboardInterrupt:  # somebody else's: ours comes as SIGTERM
        return 130, ""
    except BaseException as error:
        traceback.print_exc()
        return 1, one_line(f"{type(error).__name__}: {error}", 500)


def _arguments(store: Store, job: Job) -> list[str]:
    """What train.py is to do. Raises UserError if the text is gone."""
    run = store.run_of(job)
    if jobs.checkpoint_of(run):
        return ["--resume", str(run.folder)]
    # It was ended before its first checkpoint, if it ever began; its name has been its own since then.
    shutil.rmtree(run.folder, ignore_errors=True)
    settings = resolved(job.settings, store.texts) | {"out": str(run.folder), "data_report": True}
    import yaml

    file = store.folder / job.id / "settings.yaml"
    write_text(file, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return ["--config", str(file)]


def _obey(store: Store, id: str, over: threading.Event) -> None:
    """End this process when that is asked for."""
    while not over.wait(_EVERY):
        job = store.get(id)
        if job and job.asked:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def lower_priority(to_be_killed: int) -> None:
    """Let whoever writes on the page go first, and where memory runs out, let this process die for it
    rather than the server: `to_be_killed`, up to 1000, says how much rather."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # Linux alone has it
        Path("/proc/self/oom_score_adj").write_text(str(to_be_killed))


def script() -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m app.jobs.runner", description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--job")
    parser.add_argument("--lock", type=int, help="the number of the open file that holds the lock")
    options = parser.parse_args()
    store = Store(options.models)
    if options.job:
        lock = options.lock or locks.take(store.lock_of(options.job))
        return 1 if lock is None else train(store, options.job, lock)
    serve(store, options.at_once, options.lock)
    return 0


if __name__ == "__main__":
    sys.exit(script())
