"""A full disk, too little memory, early stopping: a training ends well or says what to do."""

import errno
import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import lm
from lm.cli.train import main
from lm.errors import UserError
from lm.storage.run_folder import Run
from lm.storage.saving import save_model
from lm.training import record
from tests.conftest import SMALL, edit_progress, metrics, script, started

LITTLE = 20_000  # bytes: enough for the metrics, not for the weights


pytestmark = pytest.mark.usefixtures("here")


def test_a_temporarily_full_disk_costs_a_warning(here, text_file):
    command = ["--dataset", str(text_file), *SMALL, "--steps", "100000", "--eval-every", "40"]
    command += ["--save-every", "20", "--out", "r"]
    process = started("train.py", *command, cwd=here, stdout=subprocess.PIPE)
    try:
        progress = here / "r/training/checkpoint/progress.json"

        def wait_for(words):
            for line in process.stdout:
                if words in line:
                    return
            pytest.fail(f"never printed: {words}")

        def limit(size):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        wait_for("step 80 ")  # the model of step 40 is saved
        limit(LITTLE)
        wait_for("warning: the checkpoint could not be saved: File too large.")
        assert json.loads(progress.read_text())["step"] % 20 == 0
        assert (here / "r/model.safetensors").stat().st_size > LITTLE
        limit(resource.RLIM_INFINITY)
        wait_for("Saving the checkpoint works again.")
        warnings = json.loads((here / "r/training/facts.json").read_text())["warnings"]
        assert any(line.startswith("the checkpoint could not be saved: File too large.") for line in warnings)
        process.terminate()
        process.stdout.read()
        assert process.wait() == 128 + 15
    finally:
        process.kill()
    assert not [path for path in here.rglob("*") if "partial" in path.name or path.suffix == ".new"]
    steps = [
        json.loads(line)["step"] for line in (here / "r/training/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_full_disk_ends_with_a_one_line_error(here, text_file):
    command = ["--dataset", text_file, *SMALL, "--steps", 30, "--out", "r"]
    assert script("train.py", *command, "--quiet", cwd=here).returncode == 0  # the tokens are cached now
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, LITTLE))  # noqa: E731
    result = script("train.py", *command, "--overwrite", cwd=here, preexec_fn=limit)
    assert result.returncode == 2
    assert result.stdout.count("warning: the model could not be saved: File too large.") == 1
    assert result.stderr.startswith(
        "error: the model could not be saved in r: File too large. Free some space"
    )
    assert len(result.stderr.splitlines()) == 1


def test_the_best_model_is_saved_right_before_the_checkpoint(boat, monkeypatch):
    """A kill between the two leaves a model that the checkpoint does not know."""
    written = []
    for name in ("log", "add_sample"):
        monkeypatch.setattr(Run, name, lambda *_, name=name: written.append(name))
    for name in ("save_model", "save_checkpoint"):
        monkeypatch.setattr(record, name, lambda *_, name=name: written.append(name))
    monkeypatch.setattr(record, "finish", lambda trainer: None)
    monkeypatch.setattr("lm.training.train.load", lambda *_: None)
    lm.train("boat.txt", hidden_size=8, layers=1, steps=5, eval_every=5, sample_every=5, out="r")
    assert written == ["log", "add_sample", "save_model", "save_checkpoint"]


def trained(act, **settings):
    """A training, in whose callback after its first validation `act` is called."""
    acts = [act]
    settings = {"hidden_size": 8, "layers": 1, "steps": 40, "eval_every": 10, "out": "r", **settings}
    return lm.train("boat.txt", on_validation=lambda row: acts.pop()() if acts else None, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["r", "r/training"])
def test_a_run_that_is_moved_goes_on_at_its_old_place(here, boat, capsys, lost):
    trained(lambda: os.rename(lost, "moved"))
    out = capsys.readouterr().out
    assert out.count("warning") == 1
    assert "warning: r was moved or deleted: a new run in its place continues, without what was saved" in out
    assert {path.name for path in (here / "r/training").iterdir()} == {
        "checkpoint", "config.yaml", "facts.json", "loss.svg", "metrics.jsonl", "samples.txt",
    }  # fmt: skip
    assert [row["step"] for row in metrics(here / "r")] == [20, 25, 30, 40, 40]
    model = lm.train(resume="r", steps=50)
    assert model.history[-2]["step"] == 50
    if lost == "r":
        assert lm.train(resume="moved", steps=20).history[-2]["step"] == 20


@pytest.mark.slow
def test_a_run_that_another_process_has_replaced_ends(here, boat):
    def replace():
        shutil.copytree("r", "moved")
        lock = json.loads(Path("r/training/lock").read_text())
        Path("r/training/lock").write_text(json.dumps(lock | {"process": 1}))

    with pytest.raises(UserError, match=r"^r was moved or deleted during this training, and process 1 on"):
        trained(replace)


@pytest.mark.slow
@pytest.mark.parametrize("again", [True, False])
def test_a_model_that_could_not_be_saved_is_saved_at_the_end_or_named(here, boat, monkeypatch, capsys, again):
    """The disk is full during the last validation, and perhaps at the end."""
    calls = []

    def save(folder, *arguments, **options):
        calls.append(folder)
        if len(calls) == 4 or (len(calls) > 4 and not again):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_model(folder, *arguments, **options)

    monkeypatch.setattr("lm.training.record.save_model", save)
    trained(lambda: None, lr=0.01)
    best = json.loads((here / "r/training/checkpoint/progress.json").read_text())["best_step"]
    named = "warning: the model is that of step 30: the better weights of step 40 could not be saved."
    assert (best, named in capsys.readouterr().out) == ((40, False) if again else (30, True))
    assert metrics(here / "r")[-1]["step"] == best


@pytest.mark.slow
def test_a_quiet_training_still_says_what_could_not_be_saved(here, boat, monkeypatch, capsys):
    """The disk is full except for the first model."""
    calls = []

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    def save(*arguments, **options):
        calls.append(arguments)
        (full if len(calls) > 1 else save_model)(*arguments, **options)

    monkeypatch.setattr("lm.training.record.save_model", save)
    monkeypatch.setattr("lm.training.record.save_checkpoint", full)
    trained(lambda: None, lr=0.01, quiet=True, steps=20)
    out, err = capsys.readouterr()
    end = "could not be saved: No space left on device. Training continues with what was saved before, and"
    assert out == "" and sorted(err.splitlines()) == [
        f"warning: the checkpoint {end} tries again at the next save.",
        f"warning: the model {end} tries again at the next save.",
        "warning: the model is that of step 10: the better weights of step 20 could not be saved.",
    ]


@pytest.mark.slow
def test_a_quiet_training_says_that_its_folder_has_gone(boat, capsys):
    trained(lambda: os.rename("r", "moved"), quiet=True)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("warning: r was moved or deleted: a new run in its place continues")


def test_running_out_of_memory_names_the_settings_to_lower(here, text_file):
    size = 1_500_000_000  # torch alone needs up to 1 GB of addresses
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))  # noqa: E731
    command = ["--dataset", text_file, "--hidden-size", 400, "--layers", 8, "--batch-size", 400]
    result = script("train.py", *command, "--bptt", 64, "--quiet", cwd=here, preexec_fn=limit)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: there is not enough memory: lower --batch-size (now 400), --bptt (now 64), --hidden-size"
        " (now 400) or --layers (now 8), or raise --accumulate.\n"
    )


def test_patience_stops_a_training_that_does_not_improve(here, text_file, capsys):
    """A rate of almost zero learns nothing visible in five digits."""
    command = ["--dataset", str(text_file), *SMALL, "--steps", "5000", "--lr", "1e-30", "--eval-every", "5"]
    begin = time.perf_counter()
    assert main([*command, "--patience", "3", "--out", "r"]) == 0
    assert time.perf_counter() - begin < 30
    shown = capsys.readouterr().out
    assert "Stopping early: 3 validations in a row did not improve on 3." in shown
    assert "at step 5." in shown
    progress = json.loads((here / "r/training/checkpoint/progress.json").read_text())
    assert (progress["step"], progress["best_step"], progress["worse"]) == (20, 5, 3)
    # Killed before the end, it remembers that its patience had run out.
    edit_progress(here / "r", finished=False)
    assert main(["--resume", "r"]) == 0
    assert json.loads((here / "r/training/checkpoint/progress.json").read_text())["step"] == 20
