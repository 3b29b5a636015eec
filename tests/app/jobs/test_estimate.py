"""The data report and the estimate that the page shows before training starts."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs import estimate, trial_run
from app.jobs.queue import JobQueue
from lm.config.schema import RunConfig
from lm.data.corpus import open_corpus
from lm.errors import UserError
from lm.model.network import RecurrentLM
from tests.conftest import some_text

pytestmark = pytest.mark.usefixtures("forked_jobs")
SHAPE = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32}


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    return JobQueue(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(queue, upload):
    return upload(queue.uploads, some_text(30_000)).dataset


@pytest.mark.slow
def test_preview_shows_the_data_report_and_what_training_takes(queue, text):
    before = set(os.listdir(queue.store.models))
    found = queue.preview({**SHAPE, "dataset": text, "max_time": "20s", "cell": "gru"})
    assert found.rows["Text"] == "boat: 1 document, 27,000 characters for training, 3,000 for validation"
    assert "Most common" in found.rows
    measured = found.estimate
    corpus = open_corpus(RunConfig.from_flat({"dataset": [str(queue.uploads.get(text).path)]}).data)
    config = RunConfig.from_flat({**SHAPE, "cell": "gru", **measured.resolved})
    assert measured.parameters == RecurrentLM(config.model, corpus.tokenizer.vocab_size).parameter_count()
    assert measured.resolved["hidden_size"] == 32 and isinstance(measured.resolved["lr"], float)
    # Validations take a part of the time; how large a part depends on the machine.
    assert 15 < measured.seconds < 60 and 0.2 < measured.steps / (20 * measured.steps_per_second) < 1.1
    assert measured.epochs == pytest.approx(measured.steps * 8 * 32 / 27_000, rel=0.01)
    assert measured.characters_per_second == pytest.approx(measured.steps_per_second * 8 * 32, rel=0.01)
    assert 100e6 < measured.memory < 2e9 and 12 * measured.parameters < measured.disk < 1e6
    assert set(os.listdir(queue.store.models)) == before  # no run was created
    begin = time.perf_counter()
    again = queue.preview({**SHAPE, "dataset": text, "max_time": 20, "cell": "gru", "seed": 7})
    assert again == found and time.perf_counter() - begin < 0.5
    assert json.dumps(again.estimate.resolved)


def test_another_model_with_the_name_of_the_one_to_start_from_is_measured_again(queue, monkeypatch, tmp_path):
    measured = iter(estimate.Estimate(n, {}, None, None, None, None, None, 0, 0) for n in range(9))
    monkeypatch.setattr(estimate, "_measured", lambda *_: estimate.Preview({}, estimate=next(measured)))
    settings = {"init_from": str(tmp_path)}

    def parameters():
        return estimate.preview(settings, queue.store.models).estimate.parameters

    for expected in (0, 1):
        (tmp_path / "model.safetensors").write_bytes(b" " * expected)
        os.utime(tmp_path / "model.safetensors", (0, 0))  # as any file that was copied or unpacked can have
        assert parameters() == parameters() == expected


def test_simultaneous_previews_of_the_same_job_are_measured_once(queue, monkeypatch):
    measured = []

    def measure_slowly(settings, limit):
        time.sleep(0.2)
        measured.append(settings)
        return estimate.Preview({}, estimate=estimate.Estimate(7, {}, None, None, None, None, None, 0, 0))

    monkeypatch.setattr(estimate, "_measured", measure_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: estimate.preview({"layers": 7}, queue.store.models), range(2)))
    assert len(measured) == 1


@pytest.mark.slow
def test_preview_gives_up_after_the_limit(queue, text):
    begin = time.perf_counter()
    with pytest.raises(UserError, match="more than 0 seconds"):
        queue.preview({**SHAPE, "dataset": "python"}, limit=0.2)
    assert time.perf_counter() - begin < 2
    slow = {"dataset": text, "hidden_size": 512, "layers": 4, "batch_size": 512, "bptt": 32}
    for limit in (3, 6, 12):  # more than the report takes, less than the steps
        try:
            found = queue.preview(slow, limit=limit)
            break
        except UserError as error:  # the machine is busy
            assert f"reading the text takes more than {limit} seconds" in str(error)
    assert found.rows and found.estimate is None
    assert found.warnings == [
        f"No estimate: measuring it takes more than {limit} seconds. Try a smaller size."
    ]


def test_wrong_settings_are_rejected_before_anything_is_measured(queue, text, monkeypatch):
    monkeypatch.setattr(estimate, "preview", None)
    with pytest.raises(UserError, match="--layers must be in"):
        queue.preview({"dataset": text, "layers": 9})
    with pytest.raises(TypeError):  # valid settings get as far as the measurement
        queue.preview({"dataset": text, "layers": 2})


def test_a_network_larger_than_memory_is_not_tried(queue, text, monkeypatch):
    monkeypatch.setattr(trial_run, "free_memory", lambda: 1 << 20)
    values = {
        "dataset": [str(queue.uploads.get(text).path)],
        "hidden_size": 2048,
        "layers": 4,
        "batch_size": 512,
    }
    config = RunConfig.from_flat({**values, "bptt": 512})
    begin = time.perf_counter()
    found = trial_run.measure(config, open_corpus(config.data))
    assert time.perf_counter() - begin < 15  # its steps would take minutes
    assert found.seconds is None and found.steps_per_second is None
    assert found.parameters > 100e6 and found.memory > 60e9
    warnings = estimate.machine_warnings(found, queue.store.models, busy=False)
    assert any("are free: choose a smaller size" in line for line in warnings)


@pytest.mark.parametrize(
    ("settings", "near"),
    [({"hidden_size": 32, "layers": 1}, 0.4e9), ({"hidden_size": 1024, "batch_size": 64}, 1.3e9)],
)
def test_estimated_memory_grows_with_the_network(settings, near):
    assert trial_run.memory_needed(RunConfig.from_flat(settings), 100) == pytest.approx(near, rel=0.3)


def test_steps_fill_a_time_budget():
    assert trial_run.fill_budget(100, step_time=1, interruption=0, scoring=0) == (100, 100)
    # The last interruption follows the last step.
    assert trial_run.fill_budget(100, step_time=1, interruption=2, scoring=0) == (82, 102)
    # Interruptions that take longer than a tenth follow every step.
    assert trial_run.fill_budget(10, step_time=1, interruption=5, scoring=0) == (2, 12)


def test_final_evaluation_takes_at_most_a_quarter_of_a_time_budget():
    assert trial_run.fill_budget(100, step_time=1, interruption=0, scoring=10) == (90, 100)
    assert trial_run.fill_budget(100, step_time=1, interruption=0, scoring=40) == (75, 100)
    assert trial_run.fill_budget(100, step_time=1, interruption=0, scoring=1000) == (75, 100)
