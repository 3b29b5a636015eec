"""Trainings from the page: real processes, real signals; they outlive whoever started them."""

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
from app.jobs import job as on_disk
from app.jobs.queue import MOST_WAITING, Jobs
from lm import saving
from lm.errors import UserError
from tests.conftest import ROOT, some_text

SHAPE = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32, "embedding_size": 16, "dropout": 0.1}
STEPS = 400
SERVER = """
import sys, time
from app.jobs.queue import Jobs
jobs = Jobs(sys.argv[1])
settings = eval(sys.argv[2])
for _ in range(int(sys.argv[3])):
    jobs.add(settings)
print("ready", flush=True)
while True:
    jobs.list()
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path / "models")
    yield jobs
    store = jobs._store
    for job in jobs.list():
        for end in (jobs.stop, jobs.remove):
            if job.state in ("queued", "running"):
                with contextlib.suppress(UserError):
                    end(job.id)
    wait(lambda: not any(job.state == "running" for job in jobs.list()))
    wait(lambda: not on_disk.locks.is_held(store.runner_lock))


@pytest.fixture
def settings(jobs):
    return {"dataset": jobs.texts.add(some_text(30_000), "boat.txt").dataset, **SHAPE, "steps": STEPS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of the same training that nobody interrupts."""
    jobs = Jobs(tmp_path_factory.mktemp("whole"))
    text = jobs.texts.add(some_text(30_000), "boat.txt")
    job = jobs.add({"dataset": text.dataset, **SHAPE, "steps": STEPS})
    until(jobs, job, "done")
    return weights(jobs, job)


def wait(moment, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := moment()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return found


def until(jobs, job, *states):
    """Wait for a state, and see that no other end comes first."""
    ends = {"done", "failed", "stopped", "interrupted", "paused"}
    now = wait(lambda: (now := jobs.get(job.id)).state in ends | set(states) and now)
    assert now.state in states, (now, jobs.live(job.id).log)
    return now


def until_left(jobs, job):
    """Wait until the training's process is gone."""
    wait(lambda: not jobs._store.is_alive(job.id))


def run_of(jobs, job):
    return jobs._store.run_of(job)


def weights(jobs, job):
    return (run_of(jobs, job).folder / "model.safetensors").read_bytes()


def steps_in(jobs, job):
    """How far the metrics on the disk have come."""
    path = run_of(jobs, job).metrics
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("\n") else 0


def process_of(jobs, job):
    return wait(lambda: jobs._store.process_of(job.id))


def test_two_trainings_run_one_after_the_other_and_their_models_load(jobs, settings):
    first = jobs.add({**settings, "steps": 60}, "My *first* …\n<b>one</b>")
    second = jobs.add({**settings, "steps": 60, "cell": "gru"})
    assert [job.id for job in jobs.list()] == [first.id, second.id]
    assert jobs.live(second.id).phase == "waiting"
    together = set()
    while jobs.get(second.id).state != "done":
        together.add(tuple(jobs.get(job.id).state for job in (first, second)))
        time.sleep(0.02)
    assert ("running", "running") not in together and ("running", "queued") in together
    first, second = jobs.get(first.id), jobs.get(second.id)
    assert first.state == "done" and first.ended <= second.started
    names = [path.name for path in saving.models_in(jobs._store.models)]
    assert names == [second.run, first.run] and jobs.model_of(first) == first.run
    assert first.run.startswith("My-first-b-one-b-lstm-2") and second.run.startswith("boat-gru-2")
    assert first.title == "My *first* … <b>one</b>" and second.text == "boat.txt"
    models = [lm.load(jobs._store.models / job.run) for job in (first, second)]
    assert [model.network.config.cell for model in models] == ["lstm", "gru"]
    assert len(models[0].generate("The", max_new_tokens=5)[0].text) == 5


@pytest.mark.slow
def test_trainings_outlive_the_server_and_the_runner_that_are_killed(tmp_path, whole, jobs, settings):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "models"), repr(settings), "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    server.stdout.readline()
    first, second = sorted(jobs._store.all(), key=lambda job: job.queued)
    until(jobs, first, "running")
    os.killpg(server.pid, signal.SIGKILL)  # as closing a terminal does, to all that it started
    server.wait()
    assert jobs.get(first.id).state == "running" and steps_in(jobs, first) < STEPS
    # Nobody looks after them now but the runner, and then nobody at all.
    until(jobs, first, "done")
    until(jobs, second, "running")
    runner = runner_of(jobs)
    os.killpg(runner, signal.SIGKILL)
    wait(lambda: not on_disk.locks.is_held(jobs._store.runner_lock))
    third = jobs.add({**settings, "steps": 10})
    assert runner_of(jobs) != runner and jobs.get(second.id).state == "running"
    until(jobs, third, "done")
    assert jobs.get(second.id).ended <= jobs.get(third.id).started  # it waited for one that is not its own
    assert weights(jobs, first) == weights(jobs, second) == whole


def runner_of(jobs):
    """The process id of the runner."""
    path = str(jobs._store.models)

    def found():
        result = subprocess.run(
            ["pgrep", "-f", f"app.jobs.runner {path} .*--at-once"], capture_output=True, text=True
        )
        return result.stdout.split()

    (number,) = wait(found)
    return int(number)


@pytest.mark.slow
def test_a_training_paused_at_any_moment_gives_its_place_away_and_ends_as_if_it_never_paused(
    jobs, settings, whole
):
    job = jobs.add(settings)
    until(jobs, job, "running")
    jobs.pause(job.id)  # before it began
    until(jobs, job, "paused")
    assert on_disk.checkpoint_of(run_of(jobs, job)) is None and jobs.live(job.id).phase == "over"
    # What a kill in the middle of its beginning would leave.
    (run_of(jobs, job).training).mkdir(parents=True, exist_ok=True)
    assert jobs.resume(job.id).state == "queued"

    wait(lambda: steps_in(jobs, job) > 100)
    other = jobs.add({**settings, "steps": 10})
    asked = jobs.pause(job.id)
    assert asked.state == "running"
    assert jobs.live(job.id).phase == "finishing"
    with pytest.raises(UserError, match="is just being paused"):
        jobs.resume(job.id)
    assert jobs.pause(job.id).asked_at == asked.asked_at  # impatience: another signal would end it unsaved
    paused = until(jobs, job, "paused")
    assert 100 < jobs.live(job.id).step < STEPS and paused.message == ""
    until(jobs, other, "done")
    assert jobs.get(job.id).state == "paused"
    jobs.resume(job.id)
    until(jobs, job, "done")
    assert weights(jobs, job) == whole
    assert jobs.live(job.id).train[-1][0] == STEPS


@pytest.mark.slow
def test_a_killed_training_is_told_and_goes_on_from_its_checkpoint(jobs, settings, whole):
    job = jobs.add(settings)
    wait(lambda: on_disk.checkpoint_of(run_of(jobs, job)) and steps_in(jobs, job) > 100)
    os.kill(process_of(jobs, job), signal.SIGKILL)
    until_left(jobs, job)
    assert Jobs(jobs._store.models).get(job.id).state == "interrupted"  # whether a runner saw it or not
    killed = wait(lambda: "SIGKILL" in jobs.get(job.id).message and jobs.get(job.id))
    assert killed.state == "interrupted" and killed.ended and jobs.live(job.id).error == killed.message
    assert 0 < jobs.live(job.id).done < 1
    jobs.resume(job.id)
    until(jobs, job, "done")
    assert "Resuming from step" in jobs._store.log_of(job.id).read_text()
    assert weights(jobs, job) == whole


def test_the_model_of_a_training_is_found_under_another_name(jobs, settings, trained_run):
    job, other = jobs.add(settings), jobs.add(settings)
    for one in (job, other):
        jobs.stop(one.id)
        until(jobs, one, "stopped")
    folder = run_of(jobs, job).folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained_run, folder)
    assert jobs.model_of(jobs.get(job.id)) == job.run
    folder.rename(folder.with_name("canoe"))
    jobs.follow(folder, "canoe")
    jobs.follow(folder.with_name("elsewhere"), "nothing")
    assert jobs.model_of(jobs.get(job.id)) == "canoe"
    assert jobs.get(other.id).run == other.run


def test_stop_keeps_the_best_weights_as_a_model_and_is_final(jobs, settings):
    job = jobs.add({**settings, "steps": 100_000, "lr": 1e-3})
    wait(lambda: jobs.live(job.id).phase == "training")
    with pytest.raises(UserError, match="is running"):
        jobs.remove(job.id)
    assert jobs.job_of(run_of(jobs, job).folder).id == job.id
    never = jobs.add(settings)
    assert jobs.stop(never.id).state == "stopped"
    jobs.stop(job.id)
    until(jobs, job, "stopped")
    assert jobs.model_of(job) is None  # no tenth of the budget was over
    with pytest.raises(UserError, match="was stopped"):
        jobs.resume(job.id)
    assert run_of(jobs, job).folder.exists() and jobs.job_of(run_of(jobs, job).folder) is None
    for gone in (job, never):
        jobs.remove(gone.id)
    assert not run_of(jobs, job).folder.exists() and jobs.list() == []

    job = jobs.add(settings)
    wait(lambda: jobs.model_of(job))
    jobs.stop(job.id)
    until(jobs, job, "stopped")
    assert lm.load(run_of(jobs, job).folder).generate("The", max_new_tokens=3)
    jobs.remove(job.id)
    assert jobs.model_of(job) == job.run and not jobs._store.folder.joinpath(job.id).exists()


def test_a_training_that_does_not_listen_is_killed_by_a_second_stop(jobs, settings, monkeypatch):
    job = jobs.add(settings)
    os.kill(process_of(jobs, job), signal.SIGSTOP)
    jobs.stop(job.id)
    jobs.stop(job.id)  # too soon
    time.sleep(0.3)
    assert jobs.get(job.id).state == "running"
    monkeypatch.setattr("app.jobs.queue._PATIENCE", 0.0)
    jobs.stop(job.id)
    until(jobs, job, "stopped")


def test_a_training_that_has_just_ended_never_looks_cut_off(jobs):
    store = jobs._store
    job = on_disk.Job(on_disk.new_id(), "x", "x", "x")
    (store.folder / job.id).mkdir(parents=True)
    lock = on_disk.locks.take(store.lock_of(job.id))
    store.write(replace(job, state="running"))
    assert store.get(job.id).state == "running"
    look = store.is_alive

    def end_and_look(id):  # it ends between the two looks: at its job.json, and at its lock
        store.write(on_disk.ended(job, 0, ""))
        os.close(lock)
        return look(id)

    store.is_alive = end_and_look
    assert store.get(job.id).state == "done"


def test_a_runner_that_cannot_start_loses_no_training(jobs, settings, monkeypatch, caplog):
    jobs._store.make()
    log = jobs._store.folder / "runner.log"
    log.mkdir()
    job = jobs.add({**settings, "steps": 5})
    assert jobs.list() == [job] and caplog.text.count("no training can be started") == 1
    log.rmdir()
    monkeypatch.setattr("app.jobs.queue._AFTER_FAILURE", 0.0)
    jobs.list()
    until(jobs, job, "done")


def test_two_servers_on_one_folder_start_a_training_once(tmp_path, jobs, settings):
    settings = {**settings, "steps": 20}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "models"), repr(settings), "0"]
    servers = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for server in servers:
            server.stdout.readline()
        here = [threading.Thread(target=jobs.list) for _ in range(8)]
        job = jobs.add(settings)
        for thread in here:
            thread.start()
        until(jobs, job, "done")
    finally:
        for server in servers:
            server.kill()
            server.wait()
    assert jobs._store.log_of(job.id).read_text().count("Budget") == 1


def test_what_train_py_says_of_a_wrong_dataset_is_told_and_no_file_is_read(tmp_path, jobs, monkeypatch):
    # A file that a dataset of this name would be, where the server was started.
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(some_text(5000))
    monkeypatch.chdir(tmp_path)
    job = jobs.add({**SHAPE, "dataset": "etc/passwd", "steps": 5})
    failed = until(jobs, job, "failed")
    assert failed.message.startswith("there is no file or folder 'etc/passwd'")
    assert "\n" not in failed.message and jobs.live(job.id).error == failed.message
    assert jobs.live(job.id).log[-1] == f"error: {failed.message}"
    with pytest.raises(UserError, match="there is no file or folder 'etc/passwd'"):
        jobs.preview({"dataset": "etc/passwd"})
    assert jobs.resume(job.id).state == "queued"  # perhaps there is a network by now
    jobs.stop(job.id)


def test_a_damaged_job_is_left_out_with_a_warning(jobs, settings, caplog):
    job = jobs.add({**settings, "steps": 5})
    jobs.stop(job.id)
    whole = (jobs._store.folder / job.id / "job.json").read_text()
    values = json.loads(whole)
    broken = [
        whole[:40], "", "[]", "null", "\0\xff", '{"id": 5}',
        *(json.dumps(values | change) for change in (
            {"state": "dancing"}, {"run": "../../etc"}, {"run": ".jobs"}, {"run": ""}, {"settings": 5},
            {"id": "20250101-000000-aaaaaa"}, {"queued": "now"}, {"asked": "more"}, {"log_from": None},
        )),
    ]  # fmt: skip
    for number, text in enumerate(broken):
        folder = jobs._store.folder / f"20250101-000000-{number:06x}"
        folder.mkdir()
        if '"id": "2' in text and "aaaaaa" not in text:
            text = text.replace(job.id, folder.name)
        (folder / "job.json").write_text(text, encoding="latin-1")
    (jobs._store.folder / "20250101-000000-ffffff").mkdir()
    until_left(jobs, job)
    assert [job.id for job in jobs.list()] == [job.id]
    assert caplog.text.count("is left out: it is damaged") == len(broken)


@pytest.mark.parametrize("id", ["", "..", "../x", "/etc", "lock", "20250101-000000-000000", None, 5, "x\0"])
def test_other_names_than_those_of_trainings_are_refused(jobs, id):
    for method in (jobs.get, jobs.live, jobs.pause, jobs.stop, jobs.resume, jobs.remove):
        with pytest.raises(UserError, match="not here any more"):
            method(id)


def test_the_queue_has_an_end(jobs, settings, monkeypatch):
    monkeypatch.setattr("app.jobs.runner.start_runner", lambda store, at_once: None)  # nothing begins
    added = [jobs.add(settings) for _ in range(MOST_WAITING)]
    assert [job.id for job in jobs.list()] == [job.id for job in added]
    assert [jobs.live(job.id).place for job in added] == list(range(1, MOST_WAITING + 1))
    assert len({job.run for job in added}) == MOST_WAITING
    with pytest.raises(UserError, match="waiting already"):
        jobs.add(settings)
    jobs.pause(added[0].id)
    jobs.resume(added[0].id)
    assert [job.id for job in jobs.list()] == [job.id for job in (*added[1:], added[0])]
    with pytest.raises(UserError, match="waits and needs this text"):
        jobs.remove_text(settings["dataset"])
    for job in added:
        jobs.stop(job.id)
    assert jobs.remove_text(settings["dataset"]).name == "boat.txt" and jobs.texts.all() == []
    with pytest.raises(UserError, match="upload it again"):
        jobs.add(settings)
