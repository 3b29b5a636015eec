"""Interruptions of training jobs, by real signals: no job is lost, started twice, or changed by them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from app.jobs.job import Job, after_exit, new_id, resumable_checkpoint
from app.jobs.queue import JobQueue
from lm.errors import UserError
from lm.files import locks
from tests.app.jobs.conftest import SHAPE, STEPS, run_of, until, wait
from tests.conftest import ROOT, our_environment, some_text
from tests.processes import start

SERVER = """
import sys, time
from app.jobs.queue import JobQueue
queue = JobQueue(sys.argv[1])
settings = eval(sys.argv[2])
for number in range(int(sys.argv[3])):
    queue.add(settings, f"boat {number}")
print("ready", flush=True)
while True:
    queue.jobs()
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, upload):
    """The final weights of the same job without interruptions."""
    queue = JobQueue(tmp_path_factory.mktemp("whole"))
    text = upload(queue.uploads, some_text(30_000))
    job = queue.add({"dataset": text.dataset, **SHAPE, "steps": STEPS})
    until(queue, job, "done")
    return weights(queue, job)


def weights(queue, job):
    return (run_of(queue, job).folder / "model.safetensors").read_bytes()


def steps_in(queue, job):
    """The last step in metrics.jsonl."""
    path = run_of(queue, job).metrics
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("\n") else 0


def process_of(queue, job):
    return wait(lambda: queue.store.process_of(job.id))


def until_exited(queue, job):
    """Wait until the job's process has exited."""
    wait(lambda: not queue.store.is_alive(job.id))


def runner_of(queue):
    """The process id of the runner."""
    path = str(queue.store.models)

    def found():
        result = subprocess.run(
            ["pgrep", "-f", f"app.jobs.runner {path} --lock"], capture_output=True, text=True
        )
        return result.stdout.split()

    (number,) = wait(found)
    return int(number)


@pytest.mark.slow
def test_jobs_outlive_a_killed_server_and_a_killed_runner(tmp_path, uninterrupted, queue, settings):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "models"), repr(settings), "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
    )
    server.stdout.readline()
    first, second = sorted(queue.store.all(), key=lambda job: job.queued)
    until(queue, first, "running")
    os.killpg(server.pid, signal.SIGKILL)  # like closing its terminal
    server.wait()
    assert queue.get(first.id).state == "running" and steps_in(queue, first) < STEPS
    # Now only the runner is left, and then not even that.
    until(queue, first, "done")
    until(queue, second, "running")
    runner = runner_of(queue)
    os.killpg(runner, signal.SIGKILL)
    wait(lambda: not locks.is_held(queue.store.runner_lock))
    third = queue.add({**settings, "steps": 10})
    assert runner_of(queue) != runner and queue.get(second.id).state == "running"
    until(queue, third, "done")
    assert (
        queue.get(second.id).ended <= queue.get(third.id).started
    )  # the new runner waited for a job that it had not started
    assert weights(queue, first) == weights(queue, second) == uninterrupted


@pytest.mark.slow
def test_a_paused_job_lets_the_next_one_run_and_ends_with_the_same_weights(queue, settings, uninterrupted):
    job = queue.add(settings)
    until(queue, job, "running")
    queue.pause(job.id)  # before it began
    until(queue, job, "paused")
    assert resumable_checkpoint(run_of(queue, job)) is None and queue.progress(job.id).phase == "over"
    # What a kill during setup would leave.
    (run_of(queue, job).training).mkdir(parents=True, exist_ok=True)
    assert queue.resume(job.id).state == "queued"

    wait(lambda: steps_in(queue, job) > 100)
    other = queue.add({**settings, "steps": 10})
    asked = queue.pause(job.id)
    assert asked.state == "running"
    assert queue.progress(job.id).phase == "finishing"
    with pytest.raises(UserError, match="is being paused"):
        queue.resume(job.id)
    assert queue.pause(job.id).asked_at == asked.asked_at  # a second signal would end it before it has saved
    paused = until(queue, job, "paused")
    assert 100 < queue.progress(job.id).step < STEPS and paused.message == ""
    until(queue, other, "done")
    assert queue.get(job.id).state == "paused"
    queue.resume(job.id)
    until(queue, job, "done")
    assert weights(queue, job) == uninterrupted
    assert queue.progress(job.id).train[-1][0] == STEPS


@pytest.mark.slow
def test_a_killed_job_says_so_and_resumes_from_its_checkpoint(queue, settings, uninterrupted):
    job = queue.add(settings)
    wait(lambda: resumable_checkpoint(run_of(queue, job)) and steps_in(queue, job) > 100)
    os.kill(process_of(queue, job), signal.SIGKILL)
    until_exited(queue, job)
    assert JobQueue(queue.store.models).get(job.id).state == "interrupted"  # whether a runner saw it or not
    killed = wait(lambda: "SIGKILL" in queue.get(job.id).message and queue.get(job.id))
    assert killed.state == "interrupted" and killed.ended and queue.progress(job.id).error == killed.message
    assert 0 < queue.progress(job.id).done < 1
    queue.resume(job.id)
    until(queue, job, "done")
    assert "Resuming from step" in queue.store.log_of(job.id).read_text()
    assert weights(queue, job) == uninterrupted


def test_a_second_stop_kills_a_job_that_does_not_respond(queue, settings, monkeypatch):
    job = queue.add(settings)
    os.kill(process_of(queue, job), signal.SIGSTOP)
    queue.stop(job.id)
    queue.stop(job.id)  # too soon
    time.sleep(0.3)
    assert queue.get(job.id).state == "running"
    monkeypatch.setattr("app.jobs.queue._KILL_AFTER", 0.0)
    queue.stop(job.id)
    until(queue, job, "stopped")


def test_a_job_that_has_just_ended_does_not_look_interrupted(queue):
    store = queue.store
    job = Job(new_id(), "x", "x", "x")
    (store.folder / job.id).mkdir(parents=True)
    lock = locks.acquire(store.lock_of(job.id))
    store.write(replace(job, state="running"))
    assert store.get(job.id).state == "running"
    is_alive = store.is_alive

    def end_first(id):  # it ends after its job.json was read and before its lock is tested
        store.write(after_exit(job, 0, ""))
        os.close(lock)
        return is_alive(id)

    store.is_alive = end_first
    assert store.get(job.id).state == "done"


@pytest.mark.usefixtures("forked_jobs")
def test_no_job_is_lost_if_the_runner_cannot_start(queue, settings, monkeypatch, caplog):
    queue.store.create()
    log = queue.store.folder / "runner.log"
    log.mkdir()
    job = queue.add({**settings, "steps": 2})
    assert queue.jobs() == [job] and caplog.text.count("cannot start the queued jobs") == 1
    log.rmdir()
    monkeypatch.setattr("app.jobs.queue._RETRY_AFTER", 0.0)
    queue.jobs()
    until(queue, job, "done")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_jobs")
def test_two_servers_on_one_folder_start_a_job_once(tmp_path, queue, settings):
    settings = {**settings, "steps": 2}
    (tmp_path / "server.py").write_text(SERVER)
    command = [tmp_path / "server.py", tmp_path / "models", repr(settings), 0]
    files = {"stdout": subprocess.PIPE, "executable": sys.executable}
    servers = [start(command, tmp_path, our_environment(), **files) for _ in range(2)]
    try:
        for server in servers:
            assert server.stdout.readline() == "ready\n"
        here = [threading.Thread(target=queue.jobs) for _ in range(8)]
        job = queue.add(settings)
        for thread in here:
            thread.start()
        until(queue, job, "done")
    finally:
        for server in servers:
            server.kill()
            server.wait()
    assert queue.store.log_of(job.id).read_text().count("Budget") == 1
