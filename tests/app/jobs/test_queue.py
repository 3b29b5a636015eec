"""Training jobs: real processes and real signals. They outlive the server that started them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

import lm
from app.jobs import locks
from app.jobs.job import Job, after_exit, new_id, resumable_checkpoint
from app.jobs.queue import MAX_QUEUED, JobQueue
from lm import saving
from lm.errors import UserError
from tests.conftest import ROOT, some_text

SHAPE = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32, "embedding_size": 16, "dropout": 0.1}
STEPS = 400
SERVER = """
import sys, time
from app.jobs.queue import JobQueue
queue = JobQueue(sys.argv[1])
settings = eval(sys.argv[2])
for _ in range(int(sys.argv[3])):
    queue.add(settings)
print("ready", flush=True)
while True:
    queue.jobs()
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def queue(tmp_path):
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, upload):
    """The final weights of the same job without interruptions."""
    queue = JobQueue(tmp_path_factory.mktemp("whole"))
    text = upload(queue.uploads, some_text(30_000))
    job = queue.add({"dataset": text.dataset, **SHAPE, "steps": STEPS})
    until(queue, job, "done")
    return weights(queue, job)


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


def until_exited(queue, job):
    """Wait until the job's process has exited."""
    wait(lambda: not queue.store.is_alive(job.id))


def run_of(queue, job):
    return queue.store.run_of(job)


def weights(queue, job):
    return (run_of(queue, job).folder / "model.safetensors").read_bytes()


def steps_in(queue, job):
    """The last step in metrics.jsonl."""
    path = run_of(queue, job).metrics
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("\n") else 0


def process_of(queue, job):
    return wait(lambda: queue.store.process_of(job.id))


def test_two_jobs_run_one_after_another_and_their_models_load(queue, settings):
    first = queue.add({**settings, "steps": 60}, "My *first* …\n<b>one</b>")
    second = queue.add({**settings, "steps": 60, "cell": "gru"})
    assert [job.id for job in queue.jobs()] == [first.id, second.id]
    assert queue.progress(second.id).phase == "waiting"
    states = set()
    while queue.get(second.id).state != "done":
        states.add(tuple(queue.get(job.id).state for job in (first, second)))
        time.sleep(0.02)
    assert ("running", "running") not in states and ("running", "queued") in states
    first, second = queue.get(first.id), queue.get(second.id)
    assert first.state == "done" and first.ended <= second.started
    names = [path.name for path in saving.models_in(queue.store.models)]
    assert names == [second.run, first.run] and queue.model_name(first) == first.run
    assert first.run.startswith("My-first-b-one-b-lstm-2") and second.run.startswith("boat-gru-2")
    assert first.title == "My *first* … <b>one</b>" and second.text == "boat.txt"
    models = [lm.load(queue.store.models / job.run) for job in (first, second)]
    assert [model.network.config.cell for model in models] == ["lstm", "gru"]
    assert len(models[0].generate("The", max_new_tokens=5)[0].text) == 5


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


def test_the_model_of_a_job_is_found_after_it_was_renamed(idle_queue, settings, trained_run):
    queue = idle_queue
    job, other = queue.add(settings), queue.add(settings)
    for one in (job, other):
        assert queue.stop(one.id).state == "stopped"
    folder = run_of(queue, job).folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained_run, folder)
    assert queue.model_name(queue.get(job.id)) == job.run
    folder.rename(folder.with_name("canoe"))
    queue.run_renamed(folder, "canoe")
    queue.run_renamed(folder.with_name("elsewhere"), "nothing")
    assert queue.model_name(queue.get(job.id)) == "canoe"
    assert queue.get(other.id).run == other.run


def test_stop_is_final_and_keeps_the_best_weights(queue, settings):
    job = queue.add({**settings, "steps": 100_000, "lr": 1e-3})
    wait(lambda: queue.progress(job.id).phase == "training")
    with pytest.raises(UserError, match="is running"):
        queue.remove(job.id)
    assert queue.job_of_run(run_of(queue, job).folder).id == job.id
    never = queue.add(settings)
    assert queue.stop(never.id).state == "stopped"
    queue.stop(job.id)
    until(queue, job, "stopped")
    assert queue.model_name(job) is None  # it has not validated yet
    with pytest.raises(UserError, match="was stopped"):
        queue.resume(job.id)
    assert run_of(queue, job).folder.exists() and queue.job_of_run(run_of(queue, job).folder) is None
    for gone in (job, never):
        queue.remove(gone.id)
    assert not run_of(queue, job).folder.exists() and queue.jobs() == []

    job = queue.add(settings)
    wait(lambda: queue.model_name(job))
    queue.stop(job.id)
    until(queue, job, "stopped")
    assert lm.load(run_of(queue, job).folder).generate("The", max_new_tokens=3)
    queue.remove(job.id)
    assert queue.model_name(job) == job.run and not queue.store.folder.joinpath(job.id).exists()


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


def test_no_job_is_lost_if_the_runner_cannot_start(queue, settings, monkeypatch, caplog):
    queue.store.create()
    log = queue.store.folder / "runner.log"
    log.mkdir()
    job = queue.add({**settings, "steps": 5})
    assert queue.jobs() == [job] and caplog.text.count("cannot start the queued jobs") == 1
    log.rmdir()
    monkeypatch.setattr("app.jobs.queue._RETRY_AFTER", 0.0)
    queue.jobs()
    until(queue, job, "done")


def test_two_servers_on_one_folder_start_a_job_once(tmp_path, queue, settings):
    settings = {**settings, "steps": 20}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "models"), repr(settings), "0"]
    servers = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for server in servers:
            server.stdout.readline()
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


def test_the_error_for_a_wrong_dataset_is_shown_and_no_file_is_read(tmp_path, queue, monkeypatch):
    # A file with the name of the dataset, in the folder where the server was started.
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(some_text(5000))
    monkeypatch.chdir(tmp_path)
    job = queue.add({**SHAPE, "dataset": "etc/passwd", "steps": 5})
    failed = until(queue, job, "failed")
    assert failed.message.startswith("there is no file or folder 'etc/passwd'")
    assert "\n" not in failed.message and queue.progress(job.id).error == failed.message
    assert queue.progress(job.id).log[-1] == f"error: {failed.message}"
    with pytest.raises(UserError, match="there is no file or folder 'etc/passwd'"):
        queue.preview({"dataset": "etc/passwd"})
    monkeypatch.setattr("app.jobs.runner.start_runner", lambda store: None)
    assert queue.resume(job.id).state == "queued"  # the network may be back by now
    queue.stop(job.id)


def test_a_damaged_job_is_skipped_with_a_warning(idle_queue, settings, caplog):
    queue = idle_queue
    job = queue.add({**settings, "steps": 5})
    queue.stop(job.id)
    intact = (queue.store.folder / job.id / "job.json").read_text()
    values = json.loads(intact)
    changes = [
        {"state": "dancing"},
        {"run": "../../etc"},
        {"run": ".jobs"},
        {"run": ""},
        {"settings": 5},
        {"id": "20250101-000000-aaaaaa"},
        {"queued": "now"},
        {"asked": "more"},
        {"log_from": None},
    ]
    broken = [intact[:40], "", "[]", "null", "\0\xff", '{"id": 5}']
    broken += [json.dumps(values | change) for change in changes]
    for number, text in enumerate(broken):
        folder = queue.store.folder / f"20250101-000000-{number:06x}"
        folder.mkdir()
        if '"id": "2' in text and "aaaaaa" not in text:
            text = text.replace(job.id, folder.name)
        (folder / "job.json").write_text(text, encoding="latin-1")
    (queue.store.folder / "20250101-000000-ffffff").mkdir()
    assert [job.id for job in queue.jobs()] == [job.id]
    assert caplog.text.count("it is damaged") == len(broken)


@pytest.mark.parametrize("id", ["", "..", "../x", "/etc", "lock", "20250101-000000-000000", None, 5, "x\0"])
def test_ids_that_no_job_has_are_rejected(queue, id):
    for method in (queue.get, queue.progress, queue.pause, queue.stop, queue.resume, queue.remove):
        with pytest.raises(UserError, match="no longer exists"):
            method(id)


def test_the_queue_is_limited_and_in_order(idle_queue, settings):
    queue = idle_queue
    added = [queue.add(settings) for _ in range(MAX_QUEUED)]
    assert [job.id for job in queue.jobs()] == [job.id for job in added]
    assert [queue.progress(job.id).position for job in added] == list(range(1, MAX_QUEUED + 1))
    assert len({job.run for job in added}) == MAX_QUEUED
    with pytest.raises(UserError, match="queued already"):
        queue.add(settings)
    queue.pause(added[0].id)
    queue.resume(added[0].id)
    assert [job.id for job in queue.jobs()] == [job.id for job in (*added[1:], added[0])]
    for job in added:
        queue.stop(job.id)
    shutil.rmtree(queue.uploads.get(settings["dataset"]).path.parent)
    with pytest.raises(UserError, match="upload it again"):
        queue.add(settings)


def test_a_job_whose_text_is_gone_cannot_be_resumed(idle_queue, settings):
    queue = idle_queue
    job = queue.add(settings)
    queue.pause(job.id)
    shutil.rmtree(queue.uploads.get(settings["dataset"]).path.parent)
    with pytest.raises(UserError, match="upload it again"):
        queue.resume(job.id)


def test_a_job_queued_by_an_earlier_version_runs(queue, settings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("app.jobs.runner.start_runner", lambda store: None)
        job = queue.add({**settings, "steps": 5})
        queue.stop(job.id)
    # The keys of job.json are a format: no version may rename them.
    written = {
        "id": job.id,
        "title": "old",
        "text": "boat.txt",
        "run": "old-lstm-20250101-000000",
        "settings": job.settings,
        "state": "queued",
        "asked": None,
        "asked_at": 0.0,
        "created": 1.0,
        "queued": 1.0,
        "started": None,
        "ended": None,
        "message": "",
        "log_from": 0,
    }
    file = queue.store.folder / job.id / "job.json"
    assert list(json.loads(file.read_text())) == list(written)
    file.write_text(json.dumps(written))
    queue.ensure_runner()
    assert until(queue, job, "done").title == "old"
