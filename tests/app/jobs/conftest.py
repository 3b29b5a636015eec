"""For the tests of the training jobs: uploads, queues, and ways to wait for a job."""

import contextlib
import sys
import time

import pytest

from app.jobs.queue import JobQueue
from lm.errors import UserError
from lm.files import locks
from tests.conftest import some_text
from tests.processes import forking_python

SHAPE = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32, "embedding_size": 16, "dropout": 0.1}
STEPS = 400


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    """A function that uploads `text` as a file with this name."""
    folder = tmp_path_factory.mktemp("files")

    def add(uploads, text, name="boat.txt"):
        (folder / name).write_text(text, encoding="utf-8")
        return uploads.add(folder / name)

    return add


@pytest.fixture
def forked_jobs(monkeypatch):
    """The processes of the queue are forked from one that has imported torch."""
    monkeypatch.setattr(sys, "executable", forking_python())


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def queue(tmp_path, no_network):
    queue = JobQueue(tmp_path / "models")
    yield queue
    store = queue.store
    for job in queue.jobs():
        for end in (queue.stop, queue.remove):
            if job.state in ("queued", "running"):
                with contextlib.suppress(UserError):
                    end(job.id)
    wait(lambda: not any(job.state == "running" for job in queue.jobs()))
    wait(lambda: not locks.is_held(store.runner_lock))


@pytest.fixture
def idle_queue(queue, monkeypatch):
    """A queue that starts no job."""
    monkeypatch.setattr("app.jobs.runner.start_runner", lambda store: None)
    return queue


@pytest.fixture
def settings(queue, upload):
    return {"dataset": upload(queue.uploads, some_text(30_000)).dataset, **SHAPE, "steps": STEPS}


def wait(moment, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := moment()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return found


def until(queue, job, *states):
    """Wait for one of these states; no other final state may come first."""
    ends = {"done", "failed", "stopped", "interrupted", "paused"}
    now = wait(lambda: (now := queue.get(job.id)).state in ends | set(states) and now)
    assert now.state in states, (now, queue.progress(job.id).log)
    return now


def run_of(queue, job):
    return queue.store.run_of(job)
