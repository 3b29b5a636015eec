"""The processes of the queue: the runner, which starts one job after another, and the jobs.

    python -m app.jobs.runner MODELS                start the jobs in MODELS/.jobs until none is queued
    python -m app.jobs.runner MODELS --job ID       be the process of the job ID

The page only writes to `.jobs` and makes sure that a runner is alive. Each process is separate from its
parent, so closing a terminal, or restarting or killing the server, ends neither the job nor the queue. If the
runner is killed, its job keeps running; the next runner, which any page on that folder starts when a job is
queued, sees the job's lock and waits for its end.

A job calls `lm train` in its own process. It is asked to pause or stop through its job.json, which it polls
a few times a second; it then raises SIGTERM itself, so no signal ever goes to a process id read from a file.
During setup this ends it immediately, which is safe because files are replaced atomically; in the training
loop it saves first (lm/training/signals.py).
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lm.cli import train as cli
from lm.config.settings import flag_of
from lm.config.settings_file import as_yaml
from lm.errors import UserError, one_line
from lm.files import locks
from lm.files.atomic import write_text
from lm.storage.run_lock import check_free

from .job import (
    FAILED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    Job,
    JobStore,
    after_exit,
    new_budget,
    queue_order,
    resumable_checkpoint,
)
from .settings import with_dataset_path

_ROOT = Path(__file__).resolve().parents[2]  # of the packages
_POLL_EVERY = 0.25  # seconds
_NICENESS = 5  # generating text on the page has priority over training


def command(*arguments: object) -> list[str]:
    """The command line that runs this module, or the one named by `-m`, with the Python interpreter and the
    packages of this process, in whatever folder it starts."""
    module = [] if arguments[:1] == ("-m",) else ["-m", f"{__package__}.runner"]
    # -P: do not look for modules in the current folder.
    return [sys.executable, "-P", *module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment for such a process."""
    own = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    if str(_ROOT) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # a checkout
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | own


def separate() -> dict[str, Any]:
    """The arguments of `subprocess.Popen` for a process that Ctrl-C, a closed terminal and the end of this
    process do not end. On Windows, it also gives this process priority."""
    if sys.platform != "win32":
        return {"start_new_session": True}
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return {"creationflags": flags | subprocess.BELOW_NORMAL_PRIORITY_CLASS}


def start_runner(store: JobStore) -> subprocess.Popen[bytes] | None:
    """Start a runner, unless one is alive. Raises OSError."""
    lock = locks.acquire(store.runner_lock)
    if lock is None:
        return None
    with _closing_on_error(lock), open(store.folder / "runner.log", "wb") as log:
        return _start_process([store.models], lock, store.folder, log)


def _start_process(
    arguments: list[object], lock: int, folder: Path, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a process of this module that takes over the lock of an open file, which is then closed.
    Raises OSError, and the file is still open."""
    process = subprocess.Popen(
        command(*arguments, "--lock", lock),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        **separate(),
        **locks.popen_arguments(lock),
    )
    locks.hand_over(lock, process)
    return process


@contextlib.contextmanager
def _closing_on_error(file: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(file)
        raise


def run_queue(store: JobStore, lock: int) -> None:
    """Be the runner, holding its lock through the open file `lock`: start the queued jobs one after another
    until none is queued."""
    while True:
        process = None
        with store.lock():
            jobs = queue_order(store.all())
            queued = [job for job in jobs if job.state == QUEUED]
            if not queued:
                os.close(lock)  # before anyone can add a job and find a runner that is about to leave
                return
            if not any(store.is_alive(job.id) for job in jobs):
                process = _start(store, queued[0])
        if process:
            _explain_death(store, queued[0].id, process.wait())
        else:
            time.sleep(_POLL_EVERY)


def _start(store: JobStore, job: Job) -> subprocess.Popen[bytes] | None:
    """Start a job's process; the caller holds the lock of the jobs. None if it cannot be started."""
    lock = locks.acquire(store.lock_of(job.id), timeout=1.0)
    if lock is None:  # its previous process is still exiting
        return None
    try:
        with _closing_on_error(lock), open(store.log_of(job.id), "ab") as log:
            os.ftruncate(lock, 0)
            job = replace(job, state=RUNNING, asked=None, started=time.time(), ended=None, message="")
            store.write(replace(job, log_from=log.tell()))
            # The job's folder contains no folders, so `owner/name` cannot name a file there.
            return _start_process([store.models, "--job", job.id], lock, store.folder / job.id, log)
    except OSError as error:
        message = f"The job could not be started: {error.strerror}."
        store.write(replace(job, state=FAILED, ended=time.time(), message=message))
        return None


def _explain_death(store: JobStore, id: str, status: int) -> None:
    """Record what only the parent of a process learns: the signal that killed it."""
    with store.lock():
        job = store.get(id)
        if job and job.state == INTERRUPTED and status < 0:
            name = signal.Signals(-status).name
            cause = ", perhaps because memory ran out" if name == "SIGKILL" else ""
            message = f"The process was killed by {name}{cause}. Resume it to continue."
            store.write(replace(job, message=message))


def run_job(store: JobStore, id: str, lock: int) -> int:
    """Be the process of a job, holding its lock through the open file `lock`. Returns the exit status."""
    os.lseek(lock, 0, os.SEEK_SET)
    os.write(lock, f"{os.getpid()} {socket.gethostname()}".encode())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    lower_priority(500)
    job = store.get(id)
    if not job:
        return 1
    over = threading.Event()
    threading.Thread(target=_obey, args=(store, id, over), daemon=True).start()
    status, message = _train(store, job)
    over.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # too late now
    with store.lock():
        if job := store.get(id):
            store.write(after_exit(job, status, message))
    return status


def _train(store: JobStore, job: Job) -> tuple[int, str]:
    """Call `lm train`. Returns its exit status and, if it failed, the reason."""
    try:
        return cli.main(_arguments(store, job)), ""
    except UserError as error:
        message = store.with_names(str(error))
        print(f"error: {message}", file=sys.stderr)
        return 2, one_line(message, 500)
    except KeyboardInterrupt:  # from elsewhere: we send SIGTERM
        return 130, ""
    except BaseException as error:
        traceback.print_exc()
        return 1, one_line(f"{type(error).__name__}: {error}", 500)


def _arguments(store: JobStore, job: Job) -> list[str]:
    """The arguments of `lm train`. Raises UserError if the text is gone."""
    run = store.run_of(job)
    if resumable_checkpoint(run):
        budget = new_budget(run, job.settings)
        flags = [part for name, value in budget.items() for part in (flag_of(name), str(value))]
        return ["--resume", str(run.folder), *flags]
    # If the job has run before, it ended before its first checkpoint. No other run uses this folder's name.
    check_free(run.folder)
    shutil.rmtree(run.folder, ignore_errors=True)
    settings = with_dataset_path(job.settings, store.uploads) | {"out": str(run.folder), "data_report": True}
    file = store.folder / job.id / "settings.yaml"
    write_text(file, as_yaml(settings))
    return ["--config", str(file)]


def _obey(store: JobStore, id: str, over: threading.Event) -> None:
    """End this process when the user asks for it."""
    while not over.wait(_POLL_EVERY):
        job = store.get(id)
        if job and job.asked:
            if sys.platform == "win32":  # where `os.kill` ends a process without calling its handlers
                signal.raise_signal(signal.SIGTERM)
            else:  # which also interrupts a system call of the main thread
                os.kill(os.getpid(), signal.SIGTERM)
            return


def lower_priority(oom_score: int) -> None:
    """Give the page priority over this process. Where memory runs out, Linux kills the process with the
    highest score, at most 1000, rather than the server. On Windows, see `separate`."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_bytes(b"%d" % oom_score)


def main() -> int:
    """Be the runner or, with --job, a job. Returns the exit status: 1 if another process already is."""
    parser = argparse.ArgumentParser(prog="python -m app.jobs.runner")
    parser.add_argument("models", type=Path)
    parser.add_argument("--job")
    parser.add_argument("--lock", type=int, help="the number of the parent's open file that holds the lock")
    options = parser.parse_args()
    store = JobStore(options.models)
    path = store.lock_of(options.job) if options.job else store.runner_lock
    lock = locks.acquire(path) if options.lock is None else locks.inherited(path, options.lock)
    if lock is None:  # there is another
        return 1
    if options.job:
        return run_job(store, options.job, lock)
    run_queue(store, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
