"""The Models tab of a page that can change models, and of one that cannot."""

import shutil

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


def test_without_jobs_no_event_can_change_models(runs):
    changes = {"on_rename", "on_delete", "on_ask"}
    assert changes <= events(build(ModelRegistry([runs]), JobQueue(runs)))
    shared = events(build(ModelRegistry([runs]), None))
    assert not changes & shared and {"on_select", "on_download"} <= shared


def test_the_training_job_of_a_renamed_model_follows(runs, monkeypatch):
    jobs, followed = JobQueue(runs), []
    monkeypatch.setattr(jobs, "run_renamed", lambda *arguments: followed.append(arguments))
    models = ModelRegistry([runs])
    page = build(models, jobs)
    rename = next(event.fn for event in page.fns.values() if event.name == "on_rename")
    rename("boat", models.fingerprint("boat"), "canoe")
    assert followed == [(runs / "boat", "canoe")]
