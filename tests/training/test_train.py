"""`lm.train`: the command `lm train` as a function."""

import inspect
import io
import json
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file

import lm
from lm.cli.train import main
from lm.config.schema import RunConfig
from lm.errors import UserError
from lm.storage.run_folder import Run
from lm.training import record
from lm.training.display import Display
from lm.training.train import _own_torch
from tests.conftest import metrics, script
from tests.training.runs import SETTINGS, as_flags

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def trained(text_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "boat"
    rows = []
    model = lm.train(text_file, out=folder, eval_every=10, on_validation=rows.append, **SETTINGS)
    return model, rows


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def test_the_model_has_the_folder_and_the_history_of_its_run(trained):
    model, rows = trained
    assert (model.folder / "training" / "config.yaml").is_file()
    assert model.history == metrics(model.folder)
    *during, _ = [row for row in model.history if "validation_loss" in row]  # the last one is final
    assert during == rows
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert all(row["validation_loss"] > 0 and row["train_loss"] > 0 for row in rows)
    assert lm.load(model.folder).history == model.history
    assert lm.load("pretrained").history == []


@pytest.mark.slow
def test_the_same_settings_give_the_weights_of_train_py(trained, text_file, tmp_path):
    model, _ = trained
    flags = as_flags(SETTINGS)
    result = script("train.py", text_file, "--eval-every", 10, "--out", "again", *flags, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert weights("again") == weights(model.folder)


@pytest.mark.slow
@pytest.mark.parametrize("eval_tokens", [500, 0])
def test_a_short_budget_ends_with_a_part_of_the_text_unless_validations_always_score_all(
    text_file, tmp_path, eval_tokens
):
    settings = {**SETTINGS, "steps": None, "max_time": 0.2, "eval_tokens": eval_tokens}
    model = lm.train(text_file, validation_split=0.2, test_split=0.2, out=tmp_path / "short", **settings)
    for split in ("validation", "test"):
        scored, whole = model.facts[split]["tokens"], round(0.2 * 30_000)
        assert scored == pytest.approx(whole, abs=100) if eval_tokens == 0 else scored < 0.8 * whole


def test_errors_are_user_errors(text_file, trained):
    for settings, message in (
        ({"cel": "gru"}, "unknown setting 'cel'; did you mean 'cell'?"),
        ({"overwite": True}, "unknown setting 'overwite'; did you mean 'overwrite'?"),
        ({"hidden-size": 8}, "unknown setting 'hidden-size'; did you mean 'hidden_size'?"),
        ({"cell": "transformer"}, "--cell must be one of rnn, gru, lstm"),
        ({"steps": 5, "epochs": 1}, "--steps and --epochs cannot be combined"),
        ({"out": trained[0].folder}, "replace it with --overwrite"),
        ({"out": ""}, "--out must not be empty"),
        ({"preset": "nothing"}, "nothing"),
        ({"resume": "nothing"}, "nothing is not a run"),
        ({"resume": ""}, "--resume must not be empty"),
        ({"resume": True}, "there is no run to resume"),
        ({"resume": 5}, "--resume must be a string, got 5"),
        ({"config": 5}, "--config must be a string, got 5"),
        ({"cell": np.zeros((2, 2))}, "--cell must be a string, got a ndarray."),
        ({"config": {"lr": 1}}, "--config must be a string, got"),
        ({"preset": ["words"]}, "--preset must be a string, got"),
        ({"preset": 5}, "--preset must be a string, got 5"),
        ({"init_from": 5}, "there is no model folder '5'"),
        ({"init_from": [5]}, "--init-from must be a string"),
        ({"init_from": "a\0b"}, "--init-from must not contain NUL"),
        ({"mix": np.array([0.5, 0.5])}, "--mix has 2 proportions"),
        ({"max_time": True}, "--max-time must be a duration"),
    ):
        with pytest.raises(lm.UserError, match=message.replace("?", r"\?")):
            lm.train(text_file, **settings)
    with pytest.raises(lm.UserError, match="--dataset must not be empty"):
        lm.train((text_file, ""))
    with pytest.raises(lm.UserError, match=r"missing\.txt"):
        lm.train("missing.txt")


def test_only_one_process_may_call_it(text_file, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(lm.UserError, match="single process"):
        lm.train(text_file)


@pytest.mark.slow
def test_paths_and_numbers_of_numpy_are_settings_too(text_file, trained):
    config = Path("settings.yaml")
    config.write_text("bptt: 16\nbatch_size: 4\n")
    numbers = {"steps": np.int64(2), "lr": np.float32(0.5), "device": torch.device("cpu")}
    model = lm.train([text_file], config=config, init_from=trained[0].folder, quiet=True, **numbers)
    saved = RunConfig.from_flat(Run(model.folder).settings())
    assert saved.data.dataset == (str(text_file),) and saved.training.device == "cpu"
    assert (saved.training.steps, saved.training.lr, saved.training.bptt) == (2, 0.5, 16)
    assert model.network.config.cell == "gru"  # that of the model it started from


def test_two_runs_within_a_second_get_different_folders(text_file):
    settings = SETTINGS | {"steps": 1}
    assert lm.train(text_file, **settings).folder != lm.train(text_file, **settings).folder


@pytest.mark.slow
def test_a_run_without_a_checkpoint_says_how_to_start_again(text_file, tmp_path):
    def fail(row):
        raise ValueError

    out = tmp_path / "r"
    with pytest.raises(ValueError):
        lm.train(text_file, on_step=fail, out=out, **SETTINGS)
    with pytest.raises(UserError, match=r"has neither a checkpoint nor weights, .*: start again with"):
        lm.train(resume=out)
    lm.train(text_file, out=out, overwrite=True, **SETTINGS)
    shutil.rmtree(out / "training/checkpoint")
    with pytest.raises(UserError, match=r"has no checkpoint, .*: start a new run, from its best weights"):
        lm.train(resume=out)


def test_the_fraction_of_unknown_tokens_is_recorded(tmp_path):
    (tmp_path / "t.txt").write_text("the sea was calm\n" * 95 + "the boat was calm\n" * 5)
    settings = {**SETTINGS, "tokenizer": "word", "out": tmp_path / "r", "bptt": 4, "validation_split": "0.1"}
    lm.train(tmp_path / "t.txt", **settings)
    found = json.loads((tmp_path / "r/config.json").read_text())["validation"]
    assert found["unknown_fraction"] == pytest.approx(0.1, abs=0.02)  # each tenth token is "boat"
    assert "| tokens that are `<unk>` | " in (tmp_path / "r/README.md").read_text()


@pytest.mark.slow
def test_the_card_says_that_a_run_was_extended(text_file, tmp_path):
    out, sentence = tmp_path / "r", "The run had another budget until step "
    lm.train(text_file, out=out, **SETTINGS | {"steps": 10})
    assert sentence not in (out / "README.md").read_text()
    lm.train(resume=out, steps=20)
    lm.train(resume=out, steps=30)
    assert f"{sentence}10, 20, and with it other learning rates" in (out / "README.md").read_text()
    facts = json.loads((out / "config.json").read_text())["trained_on"]
    assert facts["extended_at_steps"] == [10, 20]


def test_the_rows_of_the_history_that_the_documentation_plots_have_both_losses(trained):
    rows = pandas.DataFrame(trained[0].history).dropna(subset=["train_loss", "validation_loss"])
    assert list(rows["step"]) == [10, 20, 30, 40] and list(rows.dropna()["step"]) == [10, 20, 30, 40]


class ClosedPipe(io.StringIO):
    """Standard output whose reader has gone, as that of `| head`."""

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.slow
def test_a_closed_output_saves_the_run_and_raises(text_file, trained, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(BrokenPipeError, match="closed"):
        patch.setattr("sys.stdout", ClosedPipe())
        lm.train(text_file, out="run", eval_every=10, **SETTINGS | {"quiet": False})
    assert capsys.readouterr().err == "Stopped and saved. Resume with: lm.train(resume='run')\n"
    assert weights(lm.train(resume="run", quiet=True).folder) == weights(trained[0].folder)


def test_ctrl_c_saves_and_raises_and_resume_continues_to_the_same_weights(text_file, trained):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(row):
        if row["step"] == 15:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        lm.train(text_file, out="run", eval_every=10, on_step=interrupt, **SETTINGS)
    assert {number: signal.getsignal(number) for number in before} == before
    steps = []
    model = lm.train(resume=Path("run"), on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(17, 41))  # the step after the signal is completed too
    assert weights(model.folder) == weights(trained[0].folder)
    assert lm.train(resume="run", quiet=True).folder == Path("run")  # it has finished


def test_a_signal_before_the_first_step_saves_a_run_that_can_be_resumed(text_file, trained, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Display, "start", lambda display: signal.raise_signal(signal.SIGINT))
        lm.train(text_file, out="run", eval_every=10, **SETTINGS)
    steps = []
    model = lm.train(resume="run", on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(1, 41))
    assert weights(model.folder) == weights(trained[0].folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_the_final_scoring_and_resume_does_only_that(
    text_file, trained, monkeypatch, capsys, number, status
):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    scored = []

    def score(*arguments):
        if arguments[1] is not arguments[0].network:  # a copy with the best weights
            scored.append("begun")
            signal.raise_signal(number)
            scored.append("ended")
        return real_score(*arguments)

    real_score = record.score
    flags = as_flags(SETTINGS | {"quiet": False})
    with monkeypatch.context() as patch:
        patch.setattr(record, "score", score)
        assert main([str(text_file), "--eval-every", "10", "--out", "my run", *flags]) == status
    assert scored == ["begun"]
    assert capsys.readouterr().out.endswith("\nStopped and saved. Resume with: lm train --resume 'my run'\n")
    assert {each: signal.getsignal(each) for each in before} == before
    steps = []
    model = lm.train(resume="my run", quiet=True, on_step=lambda row: steps.append(row["step"]))
    assert steps == [] and weights(model.folder) == weights(trained[0].folder)
    losses = [[row.get("validation_loss") for row in each.history] for each in (model, trained[0])]
    assert losses[0] == losses[1]


def test_it_leaves_the_random_numbers_of_the_caller_alone(text_file):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lm.train(text_file, **SETTINGS | {"steps": 2})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_computes_no_gradients(mode, text_file, trained):
    with mode():
        model = lm.train(text_file, eval_every=10, **SETTINGS)
    assert weights(model.folder) == weights(trained[0].folder)


@pytest.fixture
def other_defaults():
    """Defaults of torch that the caller of `lm.train` may have set."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cuda", enabled=False):
        yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def test_it_uses_the_usual_defaults_of_torch_and_restores_those_of_the_caller(other_defaults):
    def now():
        number = torch.zeros(())
        return number.dtype, number.device.type, torch.is_autocast_enabled("cpu")

    with pytest.raises(ZeroDivisionError), _own_torch():
        inside = now()
        raise ZeroDivisionError
    assert inside == (torch.float32, "cpu", False)
    assert now() == (torch.float64, "meta", True)


@pytest.mark.slow
def test_it_works_with_other_defaults_of_torch(text_file, trained, other_defaults):
    model = lm.train(text_file, eval_every=10, **SETTINGS)
    assert weights(model.folder) == weights(trained[0].folder)


@pytest.mark.slow
def test_it_works_in_a_thread(text_file, trained):
    models = []
    settings = SETTINGS | {"out": "run", "eval_every": 10}
    thread = threading.Thread(target=lambda: models.append(lm.train(text_file, **settings)))
    thread.start()
    thread.join()
    assert weights(models[0].folder) == weights(trained[0].folder)


def test_on_the_cpu_it_leaves_a_gpu_alone(text_file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # using it would fail without one
    initialized = torch.cuda.is_initialized()
    lm.train(text_file, out="run", device="cpu", **SETTINGS)
    lm.train(resume="run", steps=50, quiet=True)
    assert "random.cuda" not in load_file("run/training/checkpoint/state.safetensors")
    assert torch.cuda.is_initialized() == initialized


def test_its_signature_lists_every_setting():
    parameters = inspect.signature(lm.train).parameters
    assert set(RunConfig().flat()) < set(parameters)
    assert parameters["cell"].default == "lstm" and parameters["on_step"].default is None
