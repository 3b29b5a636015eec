"""Which models the page offers, and that it loads no others."""

import os
import shutil

import pytest

from app.models import NO_MODEL, SHIPPED, Models
from lm import hub
from lm.errors import UserError


@pytest.fixture
def runs(tmp_path, trained_run, monkeypatch):
    """A folder with two models, an empty folder and a broken model; no model ships."""
    monkeypatch.setattr(hub, "PRETRAINED", tmp_path / "none")
    runs = tmp_path / "runs"
    for age, name in enumerate(("newer", "older")):
        shutil.copytree(trained_run, runs / name)
        os.utime(runs / name / "model.safetensors", (1e9 - age, 1e9 - age))
    shutil.copytree(trained_run, runs / "broken")
    (runs / "broken" / "config.json").write_text("{")
    (runs / "empty").mkdir()
    return runs


def test_models_are_listed_newest_first_without_the_broken_ones(runs):
    assert list(Models([runs]).found()) == ["newer", "older"]


def test_a_model_that_appears_later_is_listed(runs, trained_run):
    models = Models([runs])
    models.found()
    shutil.copytree(trained_run, runs / "latest")
    assert "latest" in models.found()


def test_models_of_one_name_in_two_folders_are_both_listed(runs, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "old" / "newer")
    found = Models([runs, tmp_path / "old"]).found()
    assert found["newer"] == runs / "newer"
    assert found[str(tmp_path / "old" / "newer")] == tmp_path / "old" / "newer"


def test_a_folder_that_is_a_model_is_listed_itself(runs):
    assert Models([runs / "older"]).found() == {"older": runs / "older"}


def test_the_shipped_model_is_listed_last(runs, monkeypatch, trained_run):
    monkeypatch.setattr(hub, "PRETRAINED", trained_run)
    assert list(Models([runs]).found()) == ["newer", "older", SHIPPED]


@pytest.mark.parametrize("name", ["../runs/newer", "/etc", "someone/model", "broken", "empty", "NEWER"])
def test_only_what_is_listed_is_loaded(runs, name):
    with pytest.raises(UserError, match="no model"):
        Models([runs]).load(name)


def test_without_any_model_the_message_says_what_to_do(tmp_path, runs):
    with pytest.raises(UserError) as caught:
        Models([tmp_path / "absent"]).load(None)
    assert str(caught.value) == NO_MODEL and "python train.py" in NO_MODEL


def test_a_model_is_read_once_until_it_is_trained_further(runs):
    models = Models([runs])
    first = models.load("newer")
    assert models.load("newer") is first
    os.utime(runs / "newer" / "model.safetensors")
    assert models.load("newer") is not first


def test_a_model_whose_weights_are_cut_short_is_refused_in_one_line(runs):
    weights = runs / "older" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cut short") as caught:
        Models([runs]).load("older")
    assert "\n" not in str(caught.value)
