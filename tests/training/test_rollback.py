"""A step that ruins the network is rolled back, and nothing else is."""

import random
import re

import pytest

import lm
from lm.cli.train import main
from lm.errors import UserError
from tests.conftest import SMALL, metrics, some_text

pytestmark = pytest.mark.usefixtures("here")


def test_an_exploding_loss_is_rolled_back_until_the_rate_is_low_enough(here, text_file, capsys):
    command = ["--dataset", str(text_file), *SMALL, "--steps", "150", "--lr", "30"]
    assert main([*command, "--out", "r"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"loss rose from 3.50 to [\d.]+ by step 15: back to step 0, with 0.5 times the", shown)
    assert "with 0.125 times the learning rate (2 of at most 3 times)" in shown
    *records, last = metrics(here / "r")
    assert last["validation_loss"] < 3.3
    steps = [record["step"] for record in records]
    assert steps == sorted({*range(15, 151, 15), *range(25, 151, 25)})


def test_a_callback_stops_a_training_that_is_rolled_back_at_that_step(text_file):
    steps = []

    def stop(row):
        steps.append(row["step"])
        return row["step"] < 15

    settings = {"hidden_size": 32, "layers": 1, "batch_size": 8, "bptt": 32, "sample_every": 0}
    lm.train(text_file, lr=30, steps=150, on_step=stop, **settings)
    assert steps == list(range(1, 16))


@pytest.mark.slow
def test_a_change_of_text_is_not_rolled_back(here, capsys):
    """The loss rises from 1 to 5 where the digits start, and going back would not help."""
    digits = "".join(random.Random(1).choices("0123456789", k=12_000))
    (here / "t.txt").write_text(some_text(24_000) + digits)
    command = ["--dataset", "t.txt", "--hidden-size", "32", "--layers", "1", "--batch-size", "1"]
    command += ["--bptt", "32", "--steps", "850", "--lr", "0.01", "--sample-every", "0", "--out", "r"]
    assert main(command) == 0
    losses = [record["train_loss"] for record in metrics(here / "r")[:-1]]
    assert max(losses[20:]) > min(losses[:20]) + 1.5  # it did rise
    assert "back to step" not in capsys.readouterr().out


def test_a_network_that_a_validation_finds_ruined_is_rolled_back_and_not_saved(here, text_file, capsys):
    """The training loss of a step is that of the network before it."""
    command = ["--dataset", str(text_file), *SMALL, "--steps", "1"]
    assert main([*command, "--lr", "1e3", "--out", "r"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"loss rose from 3.51 to [\d.]+ by step 1: back to step 0, with 0.5 times the", shown)
    assert all(record["validation_loss"] < 3.5 for record in metrics(here / "r"))
    lower = r"^the loss .* by step 1, .*: lower --lr \(now 3e\+38\)"
    with pytest.raises(UserError, match=lower + r", --clip or --weight-decay \(now 1e\+38\)\.$"):
        main([*command, "--lr", "3e38", "--clip", "0", "--weight-decay", "1e38", "--out", "s"])
    with pytest.raises(UserError, match=lower + r" or --clip\.$"):
        main([*command, "--lr", "3e38", "--clip", "0", "--out", "t"])
    assert not (here / "s/model.safetensors").exists()
