"""Following a run's files while they grow, are cut back, or are damaged."""

import json
import time

import pytest

from app.jobs.job import Job, Store, new_id
from app.jobs.progress import _MOST_POINTS, Follower
from lm.training.plot import loss_curve

LOG = """Counting …
Text        boat: 1 document, 27,000 characters to train on, 3,000 to validate
Tokens      bpe, 90 types, 9,000 to train on, 3.00 characters each
Model       LSTM, 1 layer of 32 units, 15,745 parameters
Budget      1,200 steps, 8 streams × 32 tokens a step, 105 steps an epoch
Run         runs/boat
warning: the text is small for 15,745 parameters

 10%  step 30  0:00 (ETA 0:01)  train 2.064
"""


@pytest.fixture
def place(tmp_path):
    return Place(Store(tmp_path))


class Place:
    """A job that nobody runs, and what its run would write."""

    def __init__(self, store, **settings):
        self.store, self.job = (
            store,
            Job(new_id(), "boat", "boat.txt", "boat", {"max_time": 100.0, **settings}),
        )
        (store.folder / self.job.id).mkdir(parents=True)
        store.write(self.job)
        self.run = store.run_of(self.job)
        self.run.training.mkdir(parents=True)
        self.follower = Follower(store, self.job.id)

    def write(self, steps, every=25, tenth=250):
        for step in steps:
            record = {"step": step, "tokens": step * 256, "seconds": step / 50, "train_loss": 3 - step / 1e4}
            record |= {"learning_rate": 1e-3, "tokens_per_second": 1000.0 + step}
            if step % tenth == 0:
                record["validation_loss"] = 2.5 - step / 1e5
            self.run.log(record)

    def live(self, state="running", started=0.0, **changes):
        return self.follower.read(Job(**{**vars(self.job), "state": state, "started": started, **changes}))


def test_figures_grow_with_the_file(place):
    assert place.live("queued").phase == "waiting"
    nothing = place.live()
    assert (nothing.phase, nothing.step, nothing.train, nothing.left) == ("preparing", 0, [], 100.0)
    place.write(range(25, 501, 25))
    live = place.live()
    assert (live.phase, live.step, len(live.train), live.total_steps) == ("training", 500, 20, None)
    assert live.train[0] == (25, 0.5, 2.9975)
    assert [(r["step"], r["validation_loss"]) for r in live.validation] == [(250, 2.4975), (500, 2.495)]
    assert (live.validation_loss, live.train_loss) == (2.495, 2.95)
    assert live.tokens_per_second == 1500.0 and live.characters_per_second is None
    assert 10 <= live.seconds < 12 and live.left == pytest.approx(100 - live.seconds)
    assert live.done == pytest.approx(live.seconds / 100)
    place.write(range(525, 601, 25))
    assert [point[0] for point in place.live().train] == list(range(25, 601, 25))


def test_a_half_written_line_waits_for_its_other_half(place):
    place.write([25])
    line = json.dumps({"step": 50, "seconds": 1.0, "train_loss": 2.0}) + "\n"
    with open(place.run.metrics, "a") as file:
        file.write(line[:20])
        file.flush()
        assert place.live().step == 25
        file.write(line[20:])
    assert place.live().step == 50
    with open(place.run.metrics, "ab") as file:
        file.write(b"\xff{]\n5\n{}\n" + line.replace("50", "75").encode())
    assert [point[0] for point in place.live().train] == [25, 50, 75]


def test_after_a_resumption_the_curve_is_that_of_the_file(place):
    place.write(range(25, 301, 25))
    kept = place.run.lengths()
    place.write(range(325, 501, 25))
    assert place.live().step == 500
    place.run.cut(kept)
    # It grows beyond where the follower had read to, with other figures.
    for step in range(325, 801, 25):
        place.run.log({"step": step, "seconds": step / 49, "train_loss": 1.0, "tokens_per_second": 1.0})
    live = place.live()
    assert [point[0] for point in live.train] == list(range(25, 801, 25))
    assert live.train == Follower(place.store, place.job.id).read(live.job).train
    place.run.metrics.unlink()
    assert place.live().train == []


def test_a_long_training_keeps_few_points_and_their_mean(place):
    lines = [{"step": n, "seconds": n / 9, "train_loss": float(n % 2)} for n in range(1, 100_001)]
    place.run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    begin = time.perf_counter()
    live = place.live()
    first = time.perf_counter() - begin
    assert _MOST_POINTS / 2 <= len(live.train) <= _MOST_POINTS + 1 and live.train[-1][0] == 100_000
    assert all(0.4 < loss < 0.6 for _, _, loss in live.train)
    begin = time.perf_counter()
    place.live()
    assert time.perf_counter() - begin < first / 4  # what was read is not read again
    assert loss_curve([{"step": s, "train_loss": loss} for s, _, loss in live.train], "x")


def test_the_last_record_tells_of_the_whole_text_and_is_no_step(place):
    place.write(range(25, 501, 25))
    place.run.log({"step": 250, "seconds": 11.0, "validation_loss": 2.1})
    live = place.live("done")
    assert (live.validation_loss, live.step) == (2.1, 500)
    assert (live.done, live.left, live.phase) == (1.0, 0.0, "over")


def test_what_train_py_said_is_told(place):
    log = place.store.log_of(place.job.id)
    log.write_text("of an earlier start\n" + LOG)
    live = place.live(log_from=len("of an earlier start\n"))
    assert set(live.rows) == {"Text", "Tokens", "Model", "Budget"}  # of the run's place only its name is told
    assert live.rows["Model"] == "LSTM, 1 layer of 32 units, 15,745 parameters"
    assert live.warnings == ["the text is small for 15,745 parameters"]
    assert live.log[0] == "Counting …" and live.log[-1].startswith(" 10%")
    assert (live.phase, live.step) == ("training", 0)  # the first figures come after 25 steps
    with open(log, "a") as file:
        file.write("x\n" * 9000 + "Warning: the checkpoint could not be saved: No space left on device.\n")
    assert [w[:14] for w in place.live(log_from=20).warnings] == ["the text is sm", "the checkpoint"]
    place.write([25])
    assert place.live(log_from=20).characters_per_second == 3 * 1025.0


def test_budgets_in_steps_and_epochs_are_told_by_steps(tmp_path):
    for number, budget in enumerate(({"steps": 1200}, {"epochs": 11.4})):
        place = Place(Store(tmp_path / str(number)), max_time=None, **budget)
        place.write(range(25, 301, 25))
        place.store.log_of(place.job.id).write_text(LOG)
        live = place.live()
        assert (live.total_steps, live.done, live.left) == (1200, 0.25, pytest.approx(18.0))


def test_samples_are_the_last_whole_ones(place):
    for step in range(1, 9):
        place.run.add_sample(step, f"text {step}\n\nof two paragraphs ✓")
    with open(place.run.samples, "a") as file:
        file.write("--- step 9\nhalf")
    samples = place.live().samples
    assert samples[-1] == (8, "text 8\n\nof two paragraphs ✓") and [s for s, _ in samples] == [4, 5, 6, 7, 8]


def test_after_a_pause_the_clock_stands_until_the_training_goes_on(place):
    place.write(range(25, 501, 25))
    assert place.live("paused").seconds == 10.0 and place.live("paused").phase == "over"
    resumed = place.live(started=time.time() + 1)
    assert (resumed.phase, resumed.seconds) == ("preparing", 10.0)
