"""A tracker gets every step once, even if the run is killed and resumed."""

import importlib.util
import json
import shutil
import sqlite3
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.cli.train import main
from lm.config.schema import RunConfig, TrainingConfig
from lm.errors import UserError
from lm.storage.run_folder import Run
from lm.training import tracking
from lm.training.tracking import Tracker
from tests.conftest import metrics
from tests.training.runs import COMMAND


def track_twice(folder, name, said):
    """A run that is killed at step 75 and resumes from its checkpoint at step 50."""
    run, config = Run(folder / "r"), RunConfig(training=TrainingConfig(track=name, lr=0.25))
    run.training.mkdir(parents=True)
    for begin, steps in ((0, (25, 50, 75)), (50, (75, 100))):
        tracker = Tracker()
        tracker.open(run, config, begin, said.append)
        for step in steps:
            tracker.log({"step": step, "train_loss": 100.0 / step, "learning_rate": 0.25})
            tracker.sample(f"text of {step}", step)
        tracker.close()
    return run


def test_tensorboard(tmp_path):
    said = []
    run = track_twice(tmp_path, "tensorboard", said)
    events = EventAccumulator(str(run.training / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert losses == [(step, pytest.approx(100 / step)) for step in (25, 50, 75, 100)]
    texts = events.Tensors("sample/text_summary")
    assert [event.step for event in texts] == [25, 50, 75, 100]
    assert b"text of 100" in texts[-1].tensor_proto.string_val[0]
    assert b"lr: 0.25" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert not said


def test_tensorboard_gets_the_settings_of_a_run_that_is_first_tracked_when_it_resumes(tmp_path):
    run = Run(tmp_path / "r")
    run.training.mkdir(parents=True)
    tracker = Tracker()
    config = RunConfig(training=TrainingConfig(track="tensorboard", lr=0.25))
    tracker.open(run, config, 50, pytest.fail)
    tracker.log({"step": 75, "train_loss": 1.0})
    tracker.close()
    events = EventAccumulator(str(run.training / "tensorboard")).Reload()
    (settings,) = events.Tensors("config/text_summary")
    assert settings.step == 50 and b"lr: 0.25" in settings.tensor_proto.string_val[0]


@pytest.fixture
def trackio_folder(tmp_path, monkeypatch):
    """The folder of trackio's database."""
    import trackio
    from trackio import sqlite_storage, utils

    for module in (trackio, sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    return tmp_path / "trackio"


def test_trackio(tmp_path, trackio_folder):
    said = []
    track_twice(tmp_path, "trackio", said)
    (database,) = trackio_folder.glob("*.db")
    with sqlite3.connect(database) as connection:
        select = "select run_name, step, cast(metrics as text) from metrics order by id"
        rows = connection.execute(select).fetchall()
        (config,) = connection.execute("select cast(config as text) from configs").fetchone()
    assert len({name for name, _, _ in rows}) == 1
    assert [step for _, step, metrics in rows if "train_loss" in metrics] == [25, 50, 75, 100]
    assert sum("text of" in metrics for _, _, metrics in rows) == 4
    assert '"lr"' in config
    assert not said


def tensorboard_values(here, name):
    events = EventAccumulator(str(here / "r/training/tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def trackio_values(here, name):
    (database,) = (here / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, cast(metrics as text) from metrics order by id").fetchall()
    return [(step, json.loads(metrics)[name]) for step, metrics in rows if name in json.loads(metrics)]


@pytest.mark.parametrize("values", [tensorboard_values, trackio_values])
def test_a_run_that_is_extended_is_tracked_without_a_gap(boat, here, trackio_folder, values):
    name = values.__name__.removesuffix("_values")
    assert main([*COMMAND, "--steps", "3", "--eval-every", "1", "--track", name, "--out", "r"]) == 0
    assert main(["--resume", "r", "--steps", "5"]) == 0
    losses = [(line["step"], line["validation_loss"]) for line in metrics(here / "r") if "train_loss" in line]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5]
    assert values(here, "validation_loss") == [(step, pytest.approx(loss)) for step, loss in losses]
    final = json.loads((here / "r/config.json").read_text())["validation"]["loss"]
    assert values(here, "final_validation_loss")[-1] == (5, pytest.approx(final))


def test_a_tracker_that_fails_costs_one_warning(tmp_path, monkeypatch):
    def fail(*_):
        raise ConnectionError("the network is down")

    monkeypatch.setattr(tracking._TensorBoard, "log", fail)
    said = []
    track_twice(tmp_path, "tensorboard", said)
    assert len(said) == 2  # one per start
    assert said[0] == "tensorboard failed; training continues without it: the network is down"
    assert not [*tmp_path.rglob("tracker.json")]  # no step counts as sent


@pytest.mark.parametrize("kept", [0, 1])  # steps
def test_tensorboard_that_cannot_write_costs_one_warning_and_no_traceback(tmp_path, monkeypatch, kept):
    """A step that was lost does not count as sent: a resumed run sends it."""
    said, run, errors_of_threads = [], Run(tmp_path / "r"), []
    hook = errors_of_threads.append
    monkeypatch.setattr(threading, "excepthook", hook)
    run.training.mkdir(parents=True)
    tracker = Tracker()
    tracker.open(run, RunConfig(training=TrainingConfig(track="tensorboard")), 0, said.append)
    for step in range(10, 10 * kept + 30, 10):
        if step > 10 * kept:
            shutil.rmtree(run.training / "tensorboard", ignore_errors=True)
        tracker.sample("text", step)
        tracker.log({"step": step, "train_loss": 1.0})
    tracker.close()
    (line,) = said
    assert line.startswith("tensorboard failed; training continues without it: ")
    assert "No such file or directory" in line
    memory = run.training / "tracker.json"
    sent = json.loads(memory.read_text())["sent"] if memory.exists() else {}
    assert sent.get("figures", 0) == 10 * kept  # the thread may report a lost sample only after its flush
    assert threading.excepthook == hook and not errors_of_threads


def test_lost_tracking_is_reported_even_with_quiet(boat, monkeypatch, capsys):
    def fail(*_):
        raise ConnectionError("the network is down")

    monkeypatch.setattr(tracking._TensorBoard, "log", fail)
    assert main([*COMMAND, "--steps", "2", "--track", "tensorboard", "--out", "r"]) == 0
    shown = capsys.readouterr()
    said = "warning: tensorboard failed; training continues without it: the network is down\n"
    assert (shown.out, shown.err) == ("", said)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--track wandb needs .*: pip install wandb"):
        tracking.check_installed("wandb")
