"""The data report and the estimate that are shown before a training starts."""

import json
import os
import time

import pytest

from app.jobs import estimate, measure
from app.jobs.queue import Jobs
from lm.config.schema import RunConfig
from lm.data.corpus import open_corpus
from lm.errors import UserError
from lm.model.network import RecurrentLM
from tests.conftest import some_text

SHAPE = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return Jobs(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(jobs):
    return jobs.texts.add(some_text(30_000), "boat.txt").dataset


def test_a_preview_tells_the_text_and_what_training_takes(jobs, text):
    before = set(os.listdir(jobs._store.models))
    found = jobs.preview({**SHAPE, "dataset": text, "max_time": "20s", "cell": "gru"})
    assert found.rows["Text"] == "boat: 1 document, 27,000 characters to train on, 3,000 to validate"
    assert "Commonest" in found.rows
    told = found.estimate
    corpus = open_corpus(RunConfig.from_flat({"dataset": [str(jobs.texts.get(text).path)]}).data)
    config = RunConfig.from_flat({**SHAPE, "cell": "gru", **told.decided})
    assert told.parameters == RecurrentLM(config.model, corpus.tokenizer.vocab_size).parameter_count()
    assert told.decided["hidden_size"] == 32 and isinstance(told.decided["lr"], float)
    # Between the steps there is time for validations: how much is told by a clock, too.
    assert 15 < told.seconds < 60 and 0.2 < told.steps / (20 * told.steps_per_second) < 1.1
    assert told.epochs == pytest.approx(told.steps * 8 * 32 / 27_000, rel=0.01)
    assert told.characters_per_second == pytest.approx(told.steps_per_second * 8 * 32, rel=0.01)
    assert 100e6 < told.memory < 2e9 and 12 * told.parameters < told.disk < 1e6
    assert set(os.listdir(jobs._store.models)) == before  # no run was made
    begin = time.perf_counter()
    again = jobs.preview({**SHAPE, "dataset": text, "max_time": 20, "cell": "gru", "seed": 7})
    assert again == found and time.perf_counter() - begin < 0.5
    assert json.dumps(again.estimate.decided)

    # Of a long training one sees more than ten validations, of a short one ten.
    for budget, every in (
        ("10s", None),
        ("1h", 60 * told.steps_per_second),
        ("24h", 864 * told.steps_per_second),
    ):
        flat = jobs.add({**SHAPE, "dataset": text, "max_time": budget}, estimated=told).settings
        assert flat["eval_every"] == (every and round(every))
    for job in jobs.list():
        jobs.stop(job.id)


def test_what_takes_too_long_is_told_after_the_limit(jobs, text):
    begin = time.perf_counter()
    with pytest.raises(UserError, match="more than 0 seconds to read"):
        jobs.preview({**SHAPE, "dataset": "python"}, limit=0.2)
    assert time.perf_counter() - begin < 2
    found = jobs.preview({**SHAPE, "dataset": text, "cell": "rnn"}, limit=2.5)  # the report takes less
    assert found.rows and found.estimate is None
    assert found.warnings == [
        "There is no estimate: 2 seconds were too short to try it. Perhaps choose a smaller size."
    ]


def test_wrong_settings_are_told_before_anything_is_measured(jobs, text, monkeypatch):
    monkeypatch.setattr(estimate, "_measured_elsewhere", None)
    with pytest.raises(UserError, match="Layers lies between"):
        jobs.preview({"dataset": text, "layers": 9})
    with pytest.raises(TypeError):  # that of a good one would have been called
        jobs.preview({"dataset": text, "layers": 2})


def test_what_does_not_fit_into_the_memory_is_not_tried(jobs, text, monkeypatch):
    monkeypatch.setattr(measure, "free_memory", lambda: 1 << 20)
    values = {
        "dataset": [str(jobs.texts.get(text).path)],
        "hidden_size": 2048,
        "layers": 4,
        "batch_size": 512,
    }
    config = RunConfig.from_flat({**values, "bptt": 512})
    begin = time.perf_counter()
    told = measure.measure(config, open_corpus(config.data))
    assert time.perf_counter() - begin < 15  # its steps would take minutes
    assert told.seconds == told.steps_per_second == None  # noqa: E711
    assert told.parameters > 100e6 and told.memory > 60e9
    assert any(
        "free: choose a smaller size" in line for line in estimate._room(told, jobs._store.models, False)
    )


@pytest.mark.parametrize(
    ("settings", "near"),
    [({"hidden_size": 32, "layers": 1}, 0.4e9), ({"hidden_size": 1024, "batch_size": 64}, 1.3e9)],
)
def test_the_formula_of_the_memory_grows_with_the_shape(settings, near):
    assert measure.memory_needed(RunConfig.from_flat(settings), 100) == pytest.approx(near, rel=0.3)


def test_a_budget_of_time_is_filled_with_steps(jobs, text, monkeypatch):
    monkeypatch.setattr(measure, "_besides", lambda trainer: (0.0, 0.0))
    config = RunConfig.from_flat({**SHAPE, "dataset": [str(jobs.texts.get(text).path)], "max_time": "20s"})
    told = measure.measure(config, open_corpus(config.data), seconds=0.2)
    assert told.steps == pytest.approx(20 * told.steps_per_second, rel=0.1)
    assert 20 <= told.seconds < 20 + 10 / told.steps_per_second


def test_steps_are_those_that_validations_leave_room_for():
    assert measure._within(100, 1, 0) == (100, 100)
    assert measure._within(100, 1, 2) == (82, 102)  # the last validation is after the last step
    steps, seconds = measure._within(10, 1, 5)  # each step is followed by one
    assert (steps, seconds) == (2, 12)
