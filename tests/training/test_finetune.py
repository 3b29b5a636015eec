"""A fine-tuned model starts where another one ended, with any vocabulary."""

import json
import shutil

import pytest
import torch

import lm
from lm.cli.train import main
from lm.errors import UserError
from tests.conftest import some_text

STEPS = ["--batch-size", "8", "--bptt", "32", "--sample-every", "0", "--steps", "2", "--lr", "1e-30"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.txt").write_text(some_text(6000).replace("sea", "séa 7"))
    return tmp_path


def test_it_starts_with_the_loss_and_vocabulary_of_the_other_model(here, trained_run, text_file, capsys):
    command = ["--dataset", str(text_file), "--init-from", str(trained_run), *STEPS, "--out", "r"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "kept 33 of 33 token vectors" in shown
    assert "unknown to the tokenizer" not in shown
    before, after = (json.loads((run / "config.json").read_text()) for run in (trained_run, here / "r"))
    assert after["validation"]["loss"] == pytest.approx(before["validation"]["loss"], abs=1e-5)
    assert after["model"] == before["model"]
    assert after["trained_on"]["init_from"] == str(trained_run)


def test_characters_missing_from_the_vocabulary_are_named(here, trained_run, capsys):
    assert main(["--dataset", "new.txt", "--init-from", str(trained_run), *STEPS, "--out", "r"]) == 0
    assert "are unknown to the tokenizer, such as '7' 'é'." in capsys.readouterr().out


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


def test_it_resumes_without_the_original_model(here, trained_run, monkeypatch):
    shutil.copytree(trained_run, "base")
    assert main(["--dataset", "new.txt", "--init-from", "base", *STEPS, "--out", "r"]) == 0
    progress = here / "r/training/checkpoint/progress.json"
    progress.write_text(progress.read_text().replace('"finished": true', '"finished": false'))
    shutil.rmtree("base")
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))  # an empty one
    assert main(["--resume", "r"]) == 0
