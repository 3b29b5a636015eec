"""Trains a model as the page does: a job is started, paused, resumed and stopped. Prints what happened."""

import os
import time
from pathlib import Path

from app.jobs.queue import JobQueue
from lm.files import locks


def wait_for(condition):
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline, queue.progress(job.id).log if job else None
        time.sleep(0.01)
    return found


def is_(*states):
    now = queue.get(job.id)
    assert now.state in ("queued", "running", *states), (now, queue.progress(job.id).log)
    return now.state in states


def step_of(least):
    return lambda: queue.progress(job.id).step >= least


queue, job = JobQueue("models"), None
name = "console.txt" if os.name == "nt" else "con.txt"
Path(name).write_text("a small boat on the sea.\n" * 400, encoding="utf-8")
text = queue.uploads.add(name)
print("uploaded", text.name)
shape = {"hidden_size": 16, "layers": 1, "batch_size": 8, "bptt": 16, "embedding_size": 8, "dropout": 0.1}
job = queue.add({"dataset": text.dataset, **shape, "steps": 2000}, title="aux.x")
wait_for(lambda: is_("running"))
assert not locks.acquire(queue.store.runner_lock), "two runners"
wait_for(step_of(1))
assert queue.store.process_of(job.id)
queue.pause(job.id)
wait_for(lambda: is_("paused"))
assert any("--resume" in line for line in queue.progress(job.id).log), "it was killed before it could save"
paused_at = queue.progress(job.id).step
queue.resume(job.id)
wait_for(step_of(paused_at + 1))
wait_for(lambda: queue.model_name(job))
queue.stop(job.id)
wait_for(lambda: is_("stopped"))
print("stopped after", "a" if queue.progress(job.id).step > paused_at > 0 else "no", "pause")
name = queue.model_name(job)
print("model", name.partition("-")[0])
wait_for(lambda: not locks.is_held(queue.store.runner_lock))
queue.remove(job.id)
print("left", *sorted(path.name.partition("-")[0] for path in Path("models").iterdir()))
