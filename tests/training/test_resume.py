"""A resumed run may get a new budget; everything else stays."""

import json
import os
import re
import shutil

import pytest
import yaml

import lm
from lm.cli.train import main
from lm.errors import ModelError, UserError
from tests.conftest import edit_progress, metrics
from tests.training.runs import COMMAND, SETTINGS, edit_config, outcome, progress

pytestmark = pytest.mark.usefixtures("boat")


def rates(run):
    """The learning rate at each step that was logged."""
    return {r["step"]: r["learning_rate"] for r in metrics(run) if "learning_rate" in r}


WRONG = [
    *(
        {name: value}
        for name in ("step", "tenth", "best_step")
        for value in ("a", -1, 1.5, None, 10**18, True)
    ),
    *({name: value} for name in ("seconds", "rate", "reserve") for value in ("x", -1, None)),
    *({name: "x"} for name in ("loss_sum", "best_loss", "losses", "start_loss", "budget", "place")),
    *({name: 1} for name in ("corpus", "tokenizer", "finished", "lengths")),
    *({"losses": [value]} for value in ("a", None)),
    *({"lengths": value} for value in ({}, {"metrics.jsonl": -1, "samples.txt": 0})),
    {"loss_count": -1},
]


@pytest.mark.slow
def test_wrong_values_in_a_checkpoint_are_one_line(here):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    before = progress(here / "r")
    for wrong in WRONG:
        edit_progress(here / "r", **{**before, **wrong})
        (name,) = wrong
        with pytest.raises(ModelError, match=f"progress.json is damaged: '{name}' has a wrong value"):
            main(["--resume", "r", "--steps", "60"])
    edit_progress(here / "r", **before)
    assert main(["--resume", "r", "--steps", "60"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "samples.txt"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_files_behind_links_are_not_changed(here, name, kind):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    victim = here / "victim"
    victim.write_text("important\n" * 100)
    file = here / "r/training" / name
    file.unlink(missing_ok=True)
    file.symlink_to(victim) if kind == "link" else os.mkfifo(file)
    reason = "it is a link" if kind == "link" else "it is not a regular file"
    with pytest.raises(UserError, match=f"r/training/{name} cannot be (locked|changed): {reason}"):
        main(["--resume", "r", "--steps", "60"])
    if name == "lock":
        with pytest.raises(UserError, match=f"cannot be locked: {reason}"):
            main([*COMMAND, "--steps", "50", "--out", "r", "--overwrite"])
    assert victim.read_text() == "important\n" * 100


def test_a_linked_folder_of_another_run_is_not_resumed(here):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    shutil.copytree("r", "other")
    shutil.rmtree("other/training")
    (here / "other/training").symlink_to(here / "r/training")
    with pytest.raises(ModelError, match=r"other/training is a link that leaves its folder"):
        main(["--resume", "other", "--steps", "60"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "training/checkpoint/state.safetensors"])
def test_a_pipe_in_place_of_weights_is_an_error(here, name):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    (here / "r" / name).unlink()
    os.mkfifo(here / "r" / name)
    with pytest.raises(ModelError, match="is not a regular file"):
        main(["--resume", "r", "--steps", "60"])


@pytest.mark.slow
def test_a_finished_run_is_extended_along_the_schedule_of_the_new_budget(here, capsys):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    assert rates(here / "r")[50] == pytest.approx(0.0002, rel=0.1)  # at the end of the schedule
    first, best = metrics(here / "r"), progress(here / "r")["best_loss"]
    assert main(["--resume", "r", "--steps", "200"]) == 0
    assert "100%" not in capsys.readouterr().out  # still --quiet
    records = metrics(here / "r")
    assert records[: len(first) - 1] == first[:-1]  # without the final results
    assert sum("train_loss" not in record for record in records) == 1
    later = rates(here / "r")
    assert later[75] == pytest.approx(0.01 * 0.73, rel=0.05)  # higher again: cosine at 36% after the warm-up
    assert later[200] == pytest.approx(0.0002, rel=0.1)
    steps = [record["step"] for record in records[:-1]]
    assert steps == sorted(set(steps)) and steps[-1] == 200
    assert progress(here / "r")["best_loss"] < best
    config = yaml.safe_load((here / "r/training/config.yaml").read_text())
    assert (config["steps"], config["lr"]) == (200, 0.01)


def test_an_extended_run_keeps_its_best_weights_until_there_are_better_ones(here):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    weights, before = (here / "r/model.safetensors").read_bytes(), progress(here / "r")
    edit_progress(here / "r", best_loss=0.001)
    assert main(["--resume", "r", "--steps", "60"]) == 0
    assert (here / "r/model.safetensors").read_bytes() == weights
    assert json.loads((here / "r/config.json").read_text())["trained_on"]["steps"] == before["best_step"]


def test_patience_counts_anew_after_an_extension(here, capsys):
    command = [*COMMAND[:-1], "--steps", "5000", "--eval-every", "5", "--patience", "2", "--lr", "1e-30"]
    assert main([*command, "--out", "r"]) == 0
    assert progress(here / "r")["step"] == 15
    assert main(["--resume", "r", "--steps", "6000"]) == 0
    assert progress(here / "r")["step"] == 25


@pytest.mark.slow
def test_an_extension_that_was_killed_before_its_first_checkpoint_is_still_one(here):
    """What the kill leaves is a new config.yaml with the old checkpoint."""
    assert main([*COMMAND, "--steps", "40", "--dropout", "0.2", "--out", "whole"]) == 0
    shutil.copytree("whole", "killed")
    assert main(["--resume", "whole", "--steps", "120"]) == 0
    config = here / "killed/training/config.yaml"
    config.write_text(config.read_text().replace("steps: 40", "steps: 120"))
    assert main(["--resume", "killed"]) == 0
    assert outcome(here / "killed") == outcome(here / "whole")


@pytest.mark.slow
def test_the_kind_of_budget_may_change(here, capsys):
    assert main([*COMMAND, "--steps", "40", "--out", "r"]) == 0
    budget = round(progress(here / "r")["seconds"] + 2, 1)
    assert main(["--resume", "r", "--max-time", f"{budget}s"]) == 0
    config = yaml.safe_load((here / "r/training/config.yaml").read_text())
    assert (config["steps"], config["max_time"]) == (None, budget)
    assert progress(here / "r")["seconds"] == pytest.approx(budget, abs=1)
    assert (steps := progress(here / "r")["step"]) > 40
    per_epoch = 18_000 / (8 * 32)
    assert main(["--resume", "r", "--epochs", str((steps + 30) / per_epoch)]) == 0
    assert progress(here / "r")["step"] == pytest.approx(steps + 30, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "taken"),
    [
        (["--steps", "30"], r"40 steps \(0.569 epochs\)"),
        (["--epochs", "0.1"], r"40 steps \(0.569 epochs\)"),
        (["--max-time", "0.01s"], r"0:\d\d"),
    ],
)
def test_a_budget_that_is_spent_is_an_error_that_changes_nothing(here, budget, taken):
    assert main([*COMMAND, "--steps", "40", "--out", "r"]) == 0
    before = {path: path.read_bytes() for path in (here / "r").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"^r has already spent that budget: it has taken {taken}\. Name"):
        main(["--resume", "r", *budget])
    assert {path: path.read_bytes() for path in (here / "r").rglob("*") if path.is_file()} == before


def test_a_finished_run_says_how_to_extend_it(here, capsys):
    assert main([*COMMAND[:-1], "--steps", "10", "--out", "r"]) == 0
    capsys.readouterr()
    for command in (["--resume", "r"], ["--resume", "r", "--steps", "10"]):
        assert main(command) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert re.match(r"r has finished. .*--resume r and a larger --steps, --epochs or --max-time$", line)


def test_a_run_from_before_budgets_were_stored_can_be_extended(here):
    assert main([*COMMAND, "--steps", "20", "--out", "r"]) == 0
    edit_progress(here / "r", without=("budget", "start_loss"))
    assert main(["--resume", "r"]) == 0
    assert main(["--resume", "r", "--steps", "30"]) == 0
    assert progress(here / "r")["step"] == 30


def test_settings_that_must_stay_are_named_together_with_those_that_may_change(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    may_change = ".*--steps.*--dataset.*--device.*--accumulate"
    for flag, value in (("--lr", "0.5"), ("--batch-size", "4"), ("--preset", "words")):
        with pytest.raises(UserError, match=f"leave out {flag}, or {may_change}"):
            main(["--resume", "r", flag, value])


def test_a_resumed_run_stays_in_its_folder(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    with pytest.raises(UserError, match=r"^a resumed run keeps its settings; leave out --out, or"):
        main(["--resume", "r", "--out", "other", "--steps", "20"])
    assert not (here / "other").exists() and progress(here / "r")["step"] == 10
    assert main(["--resume", "r", "--out", "r", "--steps", "20"]) == 0


def test_what_a_killed_process_has_left_is_deleted(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    left = [here / "r/.model.safetensors.4711.partial", here / "r/training/.loss.svg.4711.partial"]
    for path in left:
        path.write_bytes(bytes(100))
    assert main(["--resume", "r", "--steps", "20"]) == 0
    assert not any(path.exists() for path in left)


def test_a_quiet_run_may_continue_loudly(here, capsys):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    assert main(["--resume", "r", "--steps", "20", "--no-quiet"]) == 0
    assert "Resuming from step 10" in capsys.readouterr().out


@pytest.mark.slow
def test_settings_that_were_changed_in_the_file_are_an_error(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    before = progress(here / "r")["settings"]
    assert before == yaml.safe_load((here / "r/training/config.yaml").read_text())
    for changes, named in (
        ({"optimizer": "adamw"}, "optimizer: muon"),
        (
            {"direction": "backward", "seed": 9, "max_chars": 100},
            "max_chars: null, direction: forward, seed: 1",
        ),
        ({"validation_split": "0.5"}, "validation_split: null"),
        ({"mix": [1.0]}, "mix: null"),
    ):
        edit_config(here / "r", **changes)
        with pytest.raises(UserError) as error:
            main(["--resume", "r", "--steps", "20"])
        assert str(error.value) == (
            "r/training/config.yaml has been changed, but a resumed run keeps its settings: restore"
            f" {named}, or start a new run."
        )
        edit_config(here / "r", **before)
    edit_config(here / "r", steps=20, quiet=True, out="elsewhere", save_every=5)
    assert main(["--resume", "r"]) == 0
    assert progress(here / "r")["step"] == 20 and progress(here / "r")["settings"]["steps"] == 20


@pytest.mark.slow
def test_a_run_from_before_settings_were_stored_stores_them_when_it_resumes(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    edit_progress(here / "r", without=["settings"])
    assert main(["--resume", "r", "--steps", "20"]) == 0
    edit_config(here / "r", lr=0.5)
    with pytest.raises(UserError, match=r"restore lr: 0\.01, or start a new run"):
        main(["--resume", "r", "--steps", "30"])


@pytest.mark.slow
def test_an_unknown_value_in_a_checkpoint_without_digests_is_named(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    edit_progress(here / "r", speed=1)
    with pytest.raises(
        ModelError, match=r"progress\.json is damaged: it has an unknown value 'speed'; restore"
    ):
        main(["--resume", "r", "--steps", "20"])


@pytest.mark.slow
def test_a_run_of_another_format_is_not_changed(here):
    assert main([*COMMAND, "--steps", "4", "--out", "r"]) == 0
    path = here / "r/config.json"
    facts = json.loads(path.read_text())
    for version in (2, 99, "1", None, [], 0, -1, True):
        path.write_text(before := json.dumps(facts | {"format_version": version}))
        expected = "update lm" if version in (2, 99) else "has no format_version"
        for command in (["--resume", "r", "--steps", "8"], [*COMMAND, "--init-from", "r", "--out", "s"]):
            with pytest.raises(ModelError, match=expected):
                main(command)
        assert path.read_text() == before


@pytest.fixture
def newer_model(here):
    """A run of 40 steps, and a copy as a kill between its last model and checkpoint leaves it: the checkpoint
    is that of step 20. Returns the loss of the model, that of step 40."""

    def keep(row):
        if row["step"] == 20:
            shutil.copytree("whole/training/checkpoint", "old")

    settings = {**SETTINGS, "eval_every": 10, "sample_every": 10, "lr": 0.02, "patience": 3}
    lm.train("boat.txt", out="whole", on_validation=keep, **settings)
    shutil.copytree("whole", "killed")
    shutil.rmtree("killed/training/checkpoint")
    os.rename("old", "killed/training/checkpoint")
    facts = json.loads((here / "killed/config.json").read_text())
    assert (progress(here / "killed")["step"], facts["trained_on"]["steps"]) == (20, 40)
    return facts["validation"]["loss"]


@pytest.mark.parametrize("steps", [pytest.param(21, marks=pytest.mark.slow), 30])
def test_a_model_that_is_newer_than_the_checkpoint_stays_the_best(here, newer_model, steps):
    """Step 30 is better than the checkpoint, but worse than the model; step 21 has no validation."""
    weights = (here / "killed/model.safetensors").read_bytes()
    assert main(["--resume", "killed", "--steps", str(steps)]) == 0
    assert (here / "killed/model.safetensors").read_bytes() == weights
    facts = json.loads((here / "killed/config.json").read_text())
    assert (facts["trained_on"]["steps"], facts["validation"]["loss"]) == (40, newer_model)
    after = progress(here / "killed")
    assert (after["best_step"], after["best_loss"]) == (40, newer_model)
    assert metrics(here / "killed")[-1]["step"] == 40


def test_a_model_that_is_newer_than_the_checkpoint_gives_way_to_a_better_one(here, newer_model):
    assert main(["--resume", "killed", "--steps", "80"]) == 0
    facts, after = json.loads((here / "killed/config.json").read_text()), progress(here / "killed")
    assert facts["trained_on"]["steps"] == after["best_step"] > 40
    assert after["best_loss"] < newer_model


@pytest.mark.slow
def test_a_time_budget_keeps_a_model_that_is_newer_than_the_checkpoint(here, newer_model):
    """Its validations fall on other steps."""
    budget = progress(here / "killed")["seconds"] + 0.02
    assert main(["--resume", "killed", "--max-time", f"{budget}s"]) == 0
    facts = json.loads((here / "killed/config.json").read_text())
    assert (facts["trained_on"]["steps"], facts["validation"]["loss"]) == (40, newer_model)


@pytest.mark.slow
def test_a_callback_that_stops_a_resumed_run_keeps_a_newer_model(here, newer_model):
    model = lm.train(resume="killed", on_step=lambda row: row["step"] < 22)
    assert progress(here / "killed")["step"] == 22
    assert (model.facts["trained_on"]["steps"], model.facts["validation"]["loss"]) == (40, newer_model)


def test_the_same_budget_repeats_the_steps_up_to_a_newer_model(here, newer_model):
    """Also its patience: the validations before and at step 40 are improvements, as they were."""
    assert main(["--resume", "killed"]) == 0
    assert outcome(here / "killed") == outcome(here / "whole")
    samples = [(here / run / "training/samples.txt").read_text() for run in ("killed", "whole")]
    assert samples[0] == samples[1]
    approx = pytest.approx(newer_model, abs=1e-6)
    ends = [progress(here / run) for run in ("killed", "whole")]
    assert [(end["worse"], end["best_step"], end["best_loss"]) for end in ends] == [(0, 40, approx)] * 2
