"""The Models tab of a page that can change models, and of one that cannot."""

import shutil

import gradio as gr
import pytest

from app.jobs.queue import JobQueue
from app.page import build
from app.registry import ModelRegistry


@pytest.fixture
def runs(tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "runs" / "boat")
    return tmp_path / "runs"


def events(page):
    """The names of all functions a browser can call."""
    return {event.name for event in page.fns.values()}


def event(page, name):
    """The function of the page with this name."""
    return next(event.fn for event in page.fns.values() if event.name == name)


@pytest.mark.slow
def test_without_jobs_no_event_can_change_models(runs):
    changes = {"on_rename", "on_delete", "on_ask"}
    assert changes <= events(build(ModelRegistry([runs]), JobQueue(runs)))
    shared = events(build(ModelRegistry([runs]), None))
    assert not changes & shared and {"on_select", "on_download"} <= shared


@pytest.mark.slow
def test_the_training_job_of_a_renamed_model_follows(runs, monkeypatch):
    jobs, followed = JobQueue(runs), []
    monkeypatch.setattr(jobs, "run_renamed", lambda *arguments: followed.append(arguments))
    models = ModelRegistry([runs])
    rename = event(build(models, jobs), "on_rename")
    rename("boat", models.fingerprint("boat"), "canoe")
    assert followed == [(runs / "boat", "canoe")]


def test_a_model_listed_under_its_path_can_keep_its_name(runs, tmp_path, idle_jobs):
    other = tmp_path / "other"
    shutil.copytree(runs / "boat", other / "boat")
    job, models = idle_jobs.add({}, "sea", base=other / "boat"), ModelRegistry([runs, other])
    job, name = idle_jobs.stop(job.id), str(other / "boat")
    rename = event(build(models, idle_jobs), "on_rename")
    rename(name, models.fingerprint(name), "boat ")
    assert models.folder(name) == other / "boat" and idle_jobs.get(job.id) == job


@pytest.fixture
def idle_jobs(runs, monkeypatch):
    """A queue that starts no job."""
    monkeypatch.setattr("app.jobs.runner.start_runner", lambda store: None)
    return JobQueue(runs)


@pytest.mark.slow
def test_a_model_does_not_get_the_name_of_a_job_that_would_overwrite_it_or_adopt_it(runs, idle_jobs):
    job, models = idle_jobs.add({}, "sea"), ModelRegistry([runs])
    rename = event(build(models, idle_jobs), "on_rename")
    with pytest.raises(gr.Error, match="'sea' is the name of a model in the list of training jobs"):
        rename("boat", models.fingerprint("boat"), " sea ")
    assert models.folder("boat") == runs / "boat"
    for end in (idle_jobs.stop, idle_jobs.remove):
        end(job.id)
    rename("boat", models.fingerprint("boat"), " sea ")
    assert models.folder("sea") == runs / "sea"


@pytest.mark.slow
def test_a_model_that_a_job_has_yet_to_start_from_stays(runs, idle_jobs):
    models = ModelRegistry([runs])
    job = idle_jobs.add({}, "sea", base=runs / "boat")
    page = build(models, idle_jobs)
    arguments = {"on_rename": ["canoe"], "on_delete": []}
    for name, more in arguments.items():
        with pytest.raises(gr.Error, match="training job 'sea' has yet to start from 'boat': wait"):
            event(page, name)("boat", models.fingerprint("boat"), *more)
    idle_jobs.stop(job.id)
    event(page, "on_rename")("boat", models.fingerprint("boat"), "canoe")
    assert idle_jobs.get(job.id).settings["init_from"] == str(runs / "canoe")
