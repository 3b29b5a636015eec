"""The progress of a job, while its files grow, are cut back or are damaged."""

import json
import time

import pytest

from app.jobs.job import Job, JobStore, new_id
from app.jobs.progress import MAX_POINTS, ProgressReader
from lm.training.facts import Facts
from lm.training.plot import loss_curve


@pytest.fixture
def case(tmp_path):
    return Case(JobStore(tmp_path))


class Case:
    """A job without a process, and the files that its run would write."""

    def __init__(self, store, **settings):
        self.store = store
        self.job = Job(new_id(), "boat", "boat.txt", "boat", {"max_time": 100.0, **settings})
        (store.folder / self.job.id).mkdir(parents=True)
        store.write(self.job)
        self.run = store.run_of(self.job)
        self.run.training.mkdir(parents=True)
        self.reader = ProgressReader(store, self.job.id)

    def write(self, steps, every=25, validate_every=250):
        for step in steps:
            record = {"step": step, "tokens": step * 256, "seconds": step / 50, "train_loss": 3 - step / 1e4}
            record |= {"learning_rate": 1e-3, "tokens_per_second": 1000.0 + step}
            if step % validate_every == 0:
                record["validation_loss"] = 2.5 - step / 1e5
            self.run.log(record)

    def write_facts(self, total_steps=None, warnings=()):
        model = "LSTM, 1 layer of 32 units, 15,745 parameters"
        Facts({"Text": "boat"}, model, "cpu", "", total_steps, 3.0, {}, list(warnings)).save(self.run)

    def read(self, state="running", started=0.0, **changes):
        return self.reader.read(Job(**{**vars(self.job), "state": state, "started": started, **changes}))


def test_progress_grows_with_the_metrics(case):
    assert case.read("queued").phase == "waiting"
    nothing = case.read()
    assert (nothing.phase, nothing.step, nothing.train, nothing.remaining) == ("preparing", 0, [], 100.0)
    case.write(range(25, 501, 25))
    progress = case.read()
    assert (progress.phase, progress.step, len(progress.train)) == ("training", 500, 20)
    assert progress.train[0] == (25, 0.5, 2.9975)
    assert [(r["step"], r["validation_loss"]) for r in progress.validations] == [(250, 2.4975), (500, 2.495)]
    assert not any("train_loss" in record for record in progress.validations)  # it would be drawn twice
    assert (progress.validation_loss, progress.train_loss) == (2.495, 2.95)
    assert progress.characters_per_second is None
    assert 10 <= progress.seconds < 12 and progress.remaining == pytest.approx(100 - progress.seconds)
    assert progress.done == pytest.approx(progress.seconds / 100)
    case.write(range(525, 601, 25))
    assert [step for step, _, _ in case.read().train] == list(range(25, 601, 25))


def test_a_half_written_line_is_read_once_it_is_complete(case):
    case.write([25])
    line = json.dumps({"step": 50, "seconds": 1.0, "train_loss": 2.0}) + "\n"
    with open(case.run.metrics, "a") as file:
        file.write(line[:20])
        file.flush()
        assert case.read().step == 25
        file.write(line[20:])
    assert case.read().step == 50
    with open(case.run.metrics, "ab") as file:
        file.write(b"\xff{]\n5\n{}\n" + line.replace("50", "75").encode())
    assert [step for step, _, _ in case.read().train] == [25, 50, 75]


def test_after_a_resume_the_curve_is_that_of_the_file(case):
    case.write(range(25, 301, 25))
    lengths = case.run.lengths()
    case.write(range(325, 501, 25))
    assert case.read().step == 500
    case.run.cut(lengths)
    # The file grows beyond the offset read so far, with different losses.
    for step in range(325, 801, 25):
        case.run.log({"step": step, "seconds": step / 49, "train_loss": 1.0, "tokens_per_second": 1.0})
    progress = case.read()
    assert [step for step, _, _ in progress.train] == list(range(25, 801, 25))
    assert progress.train == ProgressReader(case.store, case.job.id).read(progress.job).train
    case.run.metrics.unlink()
    assert case.read().train == []


def test_the_curve_of_a_long_job_consists_of_few_means(case):
    lines = [{"step": n, "seconds": n / 9, "train_loss": float(n % 2)} for n in range(1, 100_001)]
    case.run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    begin = time.perf_counter()
    progress = case.read()
    first = time.perf_counter() - begin
    assert MAX_POINTS / 2 <= len(progress.train) <= MAX_POINTS + 1 and progress.train[-1][0] == 100_000
    assert all(0.4 < loss < 0.6 for _, _, loss in progress.train)
    begin = time.perf_counter()
    case.read()
    assert time.perf_counter() - begin < first / 4  # nothing is read twice
    assert loss_curve([{"step": step, "train_loss": loss} for step, _, loss in progress.train], "x")


def test_the_final_evaluation_is_not_a_step(case):
    case.write(range(25, 501, 25))
    case.run.log({"step": 250, "seconds": 11.0, "validation_loss": 2.1})
    progress = case.read("done")
    assert (progress.validation_loss, progress.step) == (2.1, 500)
    assert (progress.done, progress.remaining, progress.phase) == (1.0, 0.0, "over")


def test_facts_are_shown_before_the_first_metrics(case):
    case.write_facts(warnings=["the text is small"])
    progress = case.read()
    assert progress.model == "LSTM, 1 layer of 32 units, 15,745 parameters"
    assert progress.warnings == ["the text is small"]
    assert (progress.phase, progress.step) == ("training", 0)
    case.write_facts(warnings=["the text is small", "the checkpoint could not be saved"])
    assert case.read().warnings == ["the text is small", "the checkpoint could not be saved"]
    case.write([25])
    assert case.read().characters_per_second == 3 * 1025.0


def test_a_resumed_job_prepares_until_it_writes_its_facts_again(case):
    case.write_facts()
    started = time.time() + 1
    assert case.read(started=started).phase == "preparing" and case.read(started=started).model


@pytest.mark.parametrize("content", ["", '{"model": "LSTM', '{"model": "LSTM"}', "[]"])
def test_a_run_without_readable_facts_has_metrics_only(case, content):
    case.run.facts.write_text(content)
    case.write([25])
    progress = case.read()
    assert (progress.model, progress.warnings, progress.characters_per_second) == ("", [], None)
    assert progress.train_loss == 2.9975


def test_the_log_ends_with_the_last_lines_of_the_last_start(case):
    earlier = "printed by an earlier start\n"
    case.store.log_of(case.job.id).write_text(earlier + "Counting …\nstep 30\n")
    assert case.read(log_from=len(earlier)).log == ["Counting …", "step 30"]
    case.store.log_of(case.job.id).write_text(earlier + "a\u2028b\x0cc\nd\n")
    assert case.read(log_from=len(earlier)).log == ["a\u2028b\x0cc", "d"]
    with open(case.store.log_of(case.job.id), "a") as file:
        file.write("x\n" * 9000 + "the end\n")
    assert case.read(log_from=len(earlier)).log == ["x"] * 19 + ["the end"]


def test_progress_of_a_budget_in_steps_or_epochs_is_counted_in_steps(tmp_path):
    for number, budget in enumerate(({"steps": 1200}, {"epochs": 11.4})):
        case = Case(JobStore(tmp_path / str(number)), max_time=None, **budget)
        case.write(range(25, 301, 25))
        assert case.read().done == (0.25 if "steps" in budget else 0)  # the steps of an epoch are not known
        case.write_facts(total_steps=1200)
        assert (case.read().done, case.read().remaining) == (0.25, pytest.approx(18.0))


def test_all_complete_samples_are_shown(case):
    assert case.read().samples == []
    expected = [(step, f"text {step}\n\nof two paragraphs ✓") for step in range(1, 9)]
    for step, text in expected:
        case.run.add_sample(step, text)
    assert case.read().samples == expected
    with open(case.run.samples, "a") as file:
        file.write("--- step 9\nhalf\n\nof a")
    assert case.read().samples == expected
    with open(case.run.samples, "a") as file:  # a model may write anything
        file.write("\n--- step by step\n\n")
    assert [step for step, _ in case.read().samples] == [*range(1, 10)]


def test_of_very_long_samples_the_last_ones_are_shown(case):
    for step in range(1, 50):
        case.run.add_sample(step, "x" * 10_000)
    steps = [step for step, _ in case.read().samples]
    assert steps == [*range(steps[0], 50)] and 1 < steps[0] < 30


def test_the_clock_stops_during_a_pause_until_training_continues(case):
    case.write(range(25, 501, 25))
    assert case.read("paused").seconds == 10.0 and case.read("paused").phase == "over"
    resumed = case.read(started=time.time() + 1)
    assert (resumed.phase, resumed.seconds) == ("preparing", 10.0)
