"""Callbacks of `lm.train`: they watch and stop a training, and change nothing else in it."""

import json

import numpy as np
import pytest
import torch

import lm
from lm.errors import UserError
from tests.training.runs import SETTINGS

pytestmark = pytest.mark.usefixtures("here")


def test_on_step_sees_every_step_and_stops_by_returning_false(text_file):
    rows = []

    def watch(row):
        rows.append(row)
        return np.bool_(row["step"] < 7)

    model = lm.train(text_file, on_step=watch, **SETTINGS)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert set(rows[0]) == {"step", "tokens", "seconds", "train_loss", "learning_rate"}
    assert rows[6]["tokens"] == 7 * 4 * 16
    mean = sum(row["train_loss"] for row in rows[4:]) / 3  # since the validation after a tenth of the budget
    assert model.history[-2]["train_loss"] == pytest.approx(mean, rel=1e-6)
    assert model.history[-2]["step"] == 7 and "validation_loss" in model.history[-2]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_callback_may_draw_random_numbers(text_file, dropout):
    drawn = []
    settings = {**SETTINGS, "hidden_size": 8, "steps": 5, "dropout": dropout, "layers": 2}
    alone = lm.train(text_file, **settings)
    watched = lm.train(text_file, on_step=lambda row: drawn.append(torch.rand(1).item()), **settings)
    assert len(set(drawn)) == len(drawn) > 1
    for weight, same in zip(alone.network.parameters(), watched.network.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_a_callback_that_raises_loses_no_checkpoint(text_file, tmp_path):
    def fail(row):
        raise ValueError(row["step"])

    out = tmp_path / "r"
    with pytest.raises(ValueError, match=r"^10$"):
        lm.train(text_file, eval_every=10, on_validation=fail, out=out, **SETTINGS)
    assert json.loads((out / "training/checkpoint/progress.json").read_text())["step"] == 10


def test_a_callback_is_a_function(text_file, tmp_path):
    for name in ("on_step", "on_validation"):
        with pytest.raises(UserError, match=f"{name} must be a function, got '5'"):
            lm.train(text_file, out=tmp_path / "r", **{name: 5}, **SETTINGS)
    assert not (tmp_path / "r").exists()


def test_on_validation_stops_by_returning_false(text_file):
    model = lm.train(text_file, eval_every=10, on_validation=lambda row: row["step"] < 20, **SETTINGS)
    assert [row["step"] for row in model.history if "train_loss" in row][-1] == 20


@pytest.mark.slow
def test_answers_that_are_not_false_do_not_stop(text_file):
    answers = iter([None, 0, "", [], True] * 100)
    model = lm.train(text_file, on_step=lambda row: next(answers), **SETTINGS)
    assert [row["step"] for row in model.history if "train_loss" in row][-1] == 40


@pytest.mark.slow
def test_an_error_of_a_callback_is_raised_and_the_run_can_be_resumed(text_file):
    def fail(row):
        if row["step"] == 25:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lm.train(text_file, out="run", eval_every=10, on_step=fail, **SETTINGS)
    assert lm.train(resume="run", quiet=True).history[-2]["step"] == 40
