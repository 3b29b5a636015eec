"""The queue of training jobs: adding, ordering, stopping, resuming and removing them."""

import json
import os
import re
import shutil
import time
from dataclasses import replace

import pytest

import lm
from app.jobs.job import RUNNING, STOP, STOPPED
from app.jobs.queue import MAX_QUEUED
from lm.errors import UserError
from lm.files import locks
from lm.storage import model_folder
from lm.storage.run_lock import check_free, claimed
from lm.training.plot import loss_curve
from tests.app.jobs.conftest import SHAPE, run_of, until, wait
from tests.conftest import some_text

pytestmark = pytest.mark.usefixtures("forked_jobs")


@pytest.mark.slow
def test_two_jobs_run_one_after_another_and_their_models_load(queue, settings):
    first = queue.add({**settings, "steps": 2}, "My *first* …\n<b>one</b>")
    second = queue.add({**settings, "steps": 2, "cell": "gru"})
    assert [job.id for job in queue.jobs()] == [first.id, second.id]
    assert queue.progress(second.id).phase == "waiting"
    states = set()
    while queue.get(second.id).state != "done":
        states.add(tuple(queue.get(job.id).state for job in (first, second)))
        time.sleep(0.02)
    assert ("running", "running") not in states and ("running", "queued") in states
    first, second = queue.get(first.id), queue.get(second.id)
    assert first.state == "done" and first.ended <= second.started
    names = [path.name for path in model_folder.models_in(queue.store.models)]
    assert names == [second.run, first.run] and queue.model_name(first) == first.run
    assert (first.run, second.run) == ("My first b one b", "boat")
    assert first.title == "My *first* … <b>one</b>" and second.text == "boat.txt"
    models = [lm.load(queue.store.models / job.run) for job in (first, second)]
    assert [model.network.config.cell for model in models] == ["lstm", "gru"]
    assert len(models[0].generate("The", max_new_tokens=5)[0].text) == 5


def test_the_model_of_a_job_is_found_after_it_was_renamed(idle_queue, settings, trained_run):
    queue = idle_queue
    job, other = queue.add(settings), queue.add(settings, "other")
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


def test_a_job_follows_the_model_that_it_starts_from(idle_queue, settings, trained_run):
    queue = idle_queue
    base, renamed = queue.store.models / "one", queue.store.models / "uno"
    shutil.copytree(trained_run, base)
    job = queue.add(settings, "finer", base=base)
    assert queue.job_starting_from(base).id == job.id and queue.job_of_run(base) is None
    base.rename(renamed)
    queue.run_renamed(base, "uno")
    followed = queue.get(job.id)
    assert followed.settings["init_from"] == str(renamed) and followed.run == "finer"
    assert queue.job_starting_from(renamed).id == job.id and queue.job_starting_from(base) is None
    (run_of(queue, job).checkpoint).mkdir(parents=True)
    (run_of(queue, job).checkpoint / "progress.json").write_text("{}")
    assert queue.job_starting_from(renamed) is None  # it can be resumed without it
    queue.stop(job.id)


def test_no_new_model_gets_the_name_of_one_that_a_job_started_from(idle_queue, settings, trained_run):
    base = idle_queue.store.models / "one"
    shutil.copytree(trained_run, base)
    job = idle_queue.add(settings, "finer", base=base)
    shutil.rmtree(base)
    assert idle_queue.add(settings, "one").run == "one 2"
    for other in idle_queue.jobs():
        idle_queue.stop(other.id)
    idle_queue.remove(job.id)
    assert not idle_queue.remembers(base) and idle_queue.add(settings, "one").run == "one"


@pytest.mark.slow
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


@pytest.mark.slow
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
    added = [queue.add({**settings, "seed": seed}) for seed in range(MAX_QUEUED)]
    assert [job.id for job in queue.jobs()] == [job.id for job in added]
    assert [queue.progress(job.id).position for job in added] == list(range(1, MAX_QUEUED + 1))
    assert len({job.run for job in added}) == MAX_QUEUED
    with pytest.raises(UserError, match="queued already"):
        queue.add({**settings, "seed": MAX_QUEUED})
    queue.pause(added[0].id)
    queue.resume(added[0].id)
    assert [job.id for job in queue.jobs()] == [job.id for job in (*added[1:], added[0])]
    for job in added:
        queue.stop(job.id)
    shutil.rmtree(queue.uploads.get(settings["dataset"]).path.parent)
    with pytest.raises(UserError, match="upload it again"):
        queue.add(settings)


@pytest.mark.slow
def test_a_finished_job_is_trained_further_in_the_same_run(queue, settings, monkeypatch):
    monkeypatch.setattr("app.jobs.queue.EXTENSION", 0.8)
    job = queue.add({**settings, "steps": 5})
    with pytest.raises(UserError, match="cannot be trained further"):
        queue.extend(job.id)
    until(queue, job, "done")
    before = queue.progress(job.id)
    assert queue.extend(job.id).state == "queued"
    queue.pause(job.id)  # before it has begun: it must not count as finished
    assert queue.resume(job.id).state in ("queued", "running")
    until(queue, job, "done")
    after = queue.progress(job.id)
    assert after.step > before.step == 5 and after.seconds > before.seconds + 0.5
    assert after.samples[: len(before.samples)] == before.samples and len(after.samples) > len(before.samples)
    steps = [step for step, _, _ in after.train]
    assert steps == sorted(steps)
    curve = loss_curve(after.validations, "boat").partition('class="validation"')[2].partition("/>")[0]
    points = [float(point.split(",")[0]) for point in re.search(r'points="([^"]+)"', curve)[1].split()]
    assert points == sorted(points)
    queue.extend(job.id)  # again
    until(queue, job, "done")
    assert queue.progress(job.id).step > after.step


def test_a_job_stopped_before_its_first_checkpoint_cannot_be_trained_further(idle_queue, settings):
    job = idle_queue.add(settings)
    idle_queue.stop(job.id)
    with pytest.raises(UserError, match="start it again instead"):
        idle_queue.extend(job.id)


@pytest.mark.slow
def test_a_job_starts_from_another_model_and_has_its_network(queue, settings, trained_run):
    job = queue.add({**settings, "steps": 2, "cell": "gru", "hidden_size": 512}, "finer", base=trained_run)
    until(queue, job, "done")
    config = json.loads((run_of(queue, job).folder / "config.json").read_text())
    known = json.loads((trained_run / "config.json").read_text())
    assert config["model"]["hidden_size"] == known["model"]["hidden_size"]
    assert "validation_loss_before" in config["trained_on"]
    preview = queue.preview({**settings, "cell": "gru"}, base=trained_run)
    assert preview.estimate.resolved["hidden_size"] == known["model"]["hidden_size"]


@pytest.mark.parametrize(
    "title, name",
    [
        ("My novel (draft 2)", "My novel (draft 2)"),
        ("我的小说 [2]", "我的小说 [2]"),
        ("a/b: c?", "a b c"),
        ("…", "text"),
    ],
)
def test_a_model_has_the_title_of_its_job(idle_queue, settings, title, name):
    added = [idle_queue.add({**settings, "seed": seed}, title) for seed in range(2)]
    assert [job.run for job in added] == [name, f"{name} 2"]


def test_a_second_press_of_the_button_adds_no_job(idle_queue, settings):
    first = idle_queue.add(settings, "one")
    assert idle_queue.add(settings, "one") == first and idle_queue.jobs() == [first]
    others = [idle_queue.add(settings, "two"), idle_queue.add({**settings, "seed": 5}, "one")]
    lock = locks.acquire(idle_queue.store.lock_of(first.id))
    idle_queue.store.write(replace(first, state=RUNNING))
    assert idle_queue.add(settings, "one").id == first.id
    idle_queue.store.write(replace(first, state=RUNNING, asked=STOP))  # it is about to end
    others.append(idle_queue.add(settings, "one"))
    idle_queue.store.write(replace(first, state=STOPPED))
    os.close(lock)
    assert len(idle_queue.jobs()) == 4 and len({job.id for job in (first, *others)}) == 4


def test_no_model_is_called_like_the_one_that_ships_with_the_package(idle_queue, settings):
    assert idle_queue.add(settings, "pretrained").run == "pretrained 2"


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
        job = queue.add({**settings, "steps": 2})
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


def test_a_running_job_owns_its_run(queue, settings):
    job = queue.add({**settings, "steps": 100_000})
    wait(lambda: queue.progress(job.id).phase == "training")
    process = queue.store.process_of(job.id)
    with pytest.raises(UserError, match=f"is being trained by process {process} on "):
        check_free(run_of(queue, job).folder)


@pytest.mark.slow
def test_a_job_whose_run_is_trained_elsewhere_fails_in_one_line(queue, settings):
    job = queue.add({**settings, "steps": 100_000})
    wait(lambda: queue.progress(job.id).phase == "training")
    queue.pause(job.id)
    until(queue, job, "paused")
    with claimed(run_of(queue, job).folder):
        queue.resume(job.id)
        failed = until(queue, job, "failed")
        assert f"is being trained by process {os.getpid()} on " in failed.message
        with pytest.raises(UserError, match="is being trained"):
            queue.remove(job.id)
    queue.stop(job.id)
    queue.remove(job.id)
