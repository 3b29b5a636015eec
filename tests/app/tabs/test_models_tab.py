"""The Models tab where people may change models, and where they may not."""

import shutil

import pytest

from app.jobs.queue import Jobs
from app.page import build
from app.registry import ModelRegistry


@pytest.fixture
def runs(tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "runs" / "boat")
    return tmp_path / "runs"


def events(page):
    """The names of all functions that a browser can call."""
    return {event.name for event in page.fns.values()}


def test_without_leave_to_change_models_nothing_that_does_can_be_called(runs):
    changes = {"on_rename", "on_delete", "on_ask"}
    assert changes <= events(build(ModelRegistry([runs]), Jobs(runs)))
    shared = events(build(ModelRegistry([runs]), None))
    assert not changes & shared and {"on_look", "on_download"} <= shared


def test_a_renamed_model_is_still_its_trainings(runs, monkeypatch):
    jobs, followed = Jobs(runs), []
    monkeypatch.setattr(jobs, "follow", lambda *told: followed.append(told))
    models = ModelRegistry([runs])
    page = build(models, jobs)
    rename = next(event.fn for event in page.fns.values() if event.name == "on_rename")
    rename("boat", models.fingerprint("boat"), "canoe")
    assert followed == [(runs / "boat", "canoe")]
