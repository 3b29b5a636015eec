"""A fine-tuned model starts where another one ended, with any vocabulary."""

import json
import random
import re
import shutil
import time

import pytest
import torch
import yaml

import lm
from lm.cli.train import main
from lm.errors import UserError
from lm.files.tensor_files import read_tensors
from tests.conftest import edit_progress, metrics, some_text, started
from tests.end_to_end.test_resume import step_of

STEPS = ["--batch-size", "8", "--bptt", "32", "--sample-every", "0", "--steps", "2", "--lr", "1e-30"]


@pytest.fixture(autouse=True)
def here(here):
    (here / "new.txt").write_text(some_text(6000).replace("sea", "séa 7"))
    return here


def test_it_starts_with_the_loss_and_vocabulary_of_the_other_model(here, trained_run, text_file, capsys):
    command = ["--dataset", str(text_file), "--init-from", str(trained_run), *STEPS, "--out", "r"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "kept 33 of 33 token vectors" in shown
    assert "unknown to the tokenizer" not in shown
    before, after = (json.loads((run / "config.json").read_text()) for run in (trained_run, here / "r"))
    assert after["validation"]["loss"] == pytest.approx(before["validation"]["loss"], abs=1e-5)
    assert after["model"] == before["model"]
    assert after["trained_on"]["init_from"] == "boat"


def test_characters_missing_from_the_vocabulary_are_named(here, trained_run, capsys):
    assert main(["--dataset", "new.txt", "--init-from", str(trained_run), *STEPS, "--out", "r"]) == 0
    assert "unknown to the tokenizer, such as '7' 'é'." in capsys.readouterr().out


@pytest.mark.parametrize(("tokenizer", "kept"), [("char", "33 of 35"), ("byte", "32 of 257")])
def test_tokens_with_the_same_text_keep_their_vectors(here, trained_run, capsys, tokenizer, kept):
    command = ["--dataset", "new.txt", "--init-from", str(trained_run), "--tokenizer", tokenizer]
    assert main([*command, *STEPS, "--out", "r"]) == 0
    assert f"kept {kept} token vectors" in capsys.readouterr().out
    old, new = lm.load(trained_run), lm.load("r")
    for letter in "aT. \n":
        ids = [int(model.tokenizer.encode(letter)[0]) for model in (old, new)]
        for name in ("embedding.weight", "decoder.weight", "decoder.bias"):
            rows = (m.network.state_dict()[name][i] for m, i in zip((old, new), ids, strict=True))
            assert torch.allclose(*rows, atol=1e-6)
    both = (model.network.state_dict()["recurrent.weight_hh_l0"] for model in (old, new))
    assert torch.allclose(*both, atol=1e-6)


def test_a_shape_that_contradicts_the_model_is_rejected(here, trained_run):
    command = ["--dataset", "new.txt", "--init-from", str(trained_run)]
    with pytest.raises(UserError, match=r"--hidden-size 64 contradicts .*boat, where it is 32: leave out"):
        main([*command, "--hidden-size", "64"])
    assert main([*command, "--hidden-size", "32", *STEPS, "--out", "r"]) == 0


def weights(folder):
    return read_tensors(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


RUIN = ["--batch-size", "8", "--bptt", "32", "--sample-every", "0", "--lr", "1"]


@pytest.fixture
def ruinous(here, trained_run, text_file):
    """Arguments of a fine-tuning run that only makes the trained model worse.

    The letters to train on are in random order, those to validate on are not. A rate that is too high would
    not be enough: after rolling back to lower rates, a fast machine ends with a better model.
    """
    text = text_file.read_text()
    learned, validated = text[:27_000], text[27_000:]
    (here / "ruin.txt").write_text("".join(random.Random(1).sample(learned, len(learned))) + validated)
    return ["--dataset", "ruin.txt", "--init-from", str(trained_run), *RUIN]


@pytest.mark.slow
@pytest.mark.parametrize(
    "budget", [["--steps", "60"], ["--max-time", "2s"], ["--steps", "60", "--eval-tokens", "500"]]
)
def test_a_fine_tuning_that_only_harms_leaves_the_weights(here, trained_run, ruinous, capsys, budget):
    assert main([*ruinous, *budget, "--out", "r"]) == 0
    assert same(weights(here / "r"), weights(trained_run))
    shown = capsys.readouterr().out
    assert "no better than before: the model keeps its initial weights (validation loss " in shown
    assert (", on 500 tokens)" in shown) == ("500" in budget)
    first, *records = metrics(here / "r")
    assert (first["step"], first["tokens"]) == (0, 0) and "train_loss" not in first
    losses = [record["validation_loss"] for record in records[:-1] if "validation_loss" in record]
    assert min(losses) > first["validation_loss"]
    assert records[-1]["step"] == 0  # whose weights the final results are of
    facts = json.loads((here / "r/config.json").read_text())["trained_on"]
    assert facts["validation_loss_before"] == facts["validation_loss_after"] == first["validation_loss"]
    assert facts["steps"] == 0


def test_a_resumed_fine_tuning_still_keeps_the_initial_weights(here, trained_run, ruinous, capsys):
    command = [*ruinous, "--steps", "60", "--save-every", "7"]
    process = started("train.py", *command, "--out", "r", cwd=here)
    while step_of(here / "r") < 14 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert 0 < step_of(here / "r") < 60
    assert same(weights(here / "r"), weights(trained_run))
    assert main(["--resume", "r"]) == 0
    assert same(weights(here / "r"), weights(trained_run))
    assert "the model keeps its initial weights" in capsys.readouterr().out
    assert [record["step"] for record in metrics(here / "r")].count(0) == 2  # first and last


def test_patience_counts_from_the_initial_weights(here, ruinous, capsys):
    command = [*ruinous, "--steps", "60", "--eval-every", "5"]
    assert main([*command, "--patience", "2", "--out", "r"]) == 0
    assert "2 validations in a row did not improve on" in capsys.readouterr().out
    assert json.loads((here / "r/training/checkpoint/progress.json").read_text())["step"] == 10


def test_fine_tuning_reports_how_much_better_the_model_is(here, trained_run, capsys):
    (here / "shouted.txt").write_text(some_text(20_000, seed=3).upper())
    command = ["--dataset", "shouted.txt", "--init-from", str(trained_run), "--tokenizer", "char"]
    assert main([*command, *RUIN[:6], "--steps", "60", "--out", "r"]) == 0
    shown = capsys.readouterr().out
    found = re.search(
        r"Fine-tuning +validation loss ([\d.]+), ([\d.]+) better than before fine-tuning \(([\d.]+)\)", shown
    )
    after, better, before = map(float, found.groups())
    assert better == pytest.approx(before - after, abs=0.0011) and better > 0.5
    assert f"before fine-tuning: validation {before:.3f}" in shown
    last = json.loads((here / "r/config.json").read_text())
    assert last["validation"]["loss"] == pytest.approx(last["trained_on"]["validation_loss_after"], abs=1e-6)


def test_a_text_like_the_models_own_gets_a_lower_rate_than_another(here, trained_run, text_file):
    (here / "shouted.txt").write_text(some_text(20_000, seed=3).upper())
    rates = {}
    for text in (str(text_file), "shouted.txt"):
        command = ["--dataset", text, "--init-from", str(trained_run), "--tokenizer", "char"]
        assert main([*command, "--batch-size", "8", "--steps", "1", "--out", "r", "--overwrite"]) == 0
        rates[text] = yaml.safe_load((here / "r/training/config.yaml").read_text())["lr"]
    fresh = 0.015 * (256 / 32) ** 0.5
    assert rates == pytest.approx({str(text_file): fresh / 16, "shouted.txt": fresh}, rel=0.02)
    facts = json.loads((here / "r/training/facts.json").read_text())
    assert facts["settings"]["lr"] == rates["shouted.txt"]


def test_an_explicit_rate_is_kept(here, trained_run, text_file):
    command = ["--dataset", str(text_file), "--init-from", str(trained_run), *STEPS]
    assert main([*command, "--out", "r"]) == 0
    assert yaml.safe_load((here / "r/training/config.yaml").read_text())["lr"] == 1e-30


def test_it_resumes_without_the_original_model(here, trained_run, monkeypatch):
    shutil.copytree(trained_run, "base")
    assert main(["--dataset", "new.txt", "--init-from", "base", *STEPS, "--out", "r"]) == 0
    edit_progress(here / "r", finished=False)
    shutil.rmtree("base")
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))  # an empty one
    assert main(["--resume", "r"]) == 0
