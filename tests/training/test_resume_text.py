"""A resumed run may find its text and its tokenizer at a new place, but no other ones."""

import json

import pytest
import yaml

from lm.cli.evaluate import main as evaluate
from lm.cli.train import main
from lm.errors import UserError
from lm.storage.run_folder import Run, read_metrics
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text
from tests.training.runs import COMMAND, edit_config, outcome, progress

pytestmark = pytest.mark.usefixtures("boat")


@pytest.fixture
def moved_run(here, monkeypatch):
    """A stopped run whose text has moved, with an empty cache."""
    assert main([*COMMAND, "--steps", "20", "--out", "r"]) == 0
    (here / "boat.txt").rename(here / "moved.txt")
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))
    return Run(here / "r")


def test_the_text_may_be_at_a_new_place(here, moved_run, monkeypatch):
    assert main(["--resume", "r", "--dataset", "moved.txt", "--steps", "30"]) == 0
    assert read_metrics(moved_run)[-2]["step"] == 30
    assert yaml.safe_load(moved_run.config.read_text())["dataset"] == ["moved.txt"]
    assert json.loads((here / "r/config.json").read_text())["trained_on"]["dataset"] == "moved.txt"
    monkeypatch.setenv("LM_CACHE", str(here / "another"))
    assert main(["--resume", "r", "--steps", "40"]) == 0


@pytest.mark.slow
def test_the_tokenizer_may_be_gone(here, monkeypatch):
    train_tokenizer("bpe", [some_text(2000)], 300).save(here / "mine.json")
    command = [*COMMAND, "--tokenizer", "mine.json", "--steps", "20"]
    assert main([*command, "--out", "r"]) == main([*command, "--out", "whole"]) == 0
    assert main(["--resume", "whole", "--steps", "30"]) == 0
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))
    (here / "mine.json").unlink()
    assert main(["--resume", "r", "--steps", "30"]) == 0
    assert outcome(here / "r") == outcome(here / "whole")
    assert yaml.safe_load((here / "r/training/config.yaml").read_text())["tokenizer"] == "mine.json"


def test_another_tokenizer_of_that_name_is_rejected(here, monkeypatch):
    train_tokenizer("bpe", [some_text(2000)], 300).save(here / "mine.json")
    assert main([*COMMAND, "--tokenizer", "mine.json", "--steps", "10", "--out", "r"]) == 0
    train_tokenizer("bpe", [some_text(2000, seed=1)], 300).save(here / "mine.json")
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))
    with pytest.raises(UserError, match=r"^r cannot be resumed: the text of boat has changed"):
        main(["--resume", "r", "--steps", "20"])


def test_an_error_about_a_missing_text_says_that_its_new_place_can_be_named(moved_run):
    with pytest.raises(UserError, match=r"no file or folder 'boat.txt'\. If the text has moved, .*--dataset"):
        main(["--resume", "r", "--steps", "30"])


def test_another_text_is_rejected_and_changes_nothing(here, moved_run):
    (here / "other.txt").write_text(some_text(20_000, seed=1))
    before = moved_run.config.read_text()
    with pytest.raises(
        UserError, match=r"^r cannot be resumed: the text of other has changed, or .* differently\.$"
    ):
        main(["--resume", "r", "--dataset", "other.txt", "--steps", "30"])
    with pytest.raises(UserError, match=r"no file or folder 'gone.txt'\.$"):
        main(["--resume", "r", "--dataset", "gone.txt", "--steps", "30"])
    assert moved_run.config.read_text() == before


def test_a_streamed_text_may_be_at_a_new_place(here, monkeypatch):
    rows = "".join(json.dumps({"text": some_text(300, seed=n)}) + "\n" for n in range(100))
    (here / "rows.jsonl").write_text(rows)
    command = ["--dataset", "rows.jsonl", "--streaming", *COMMAND[2:], "--steps", "10", "--out", "r"]
    assert main(command) == 0
    (here / "rows.jsonl").rename(here / "moved.jsonl")
    with pytest.raises(UserError, match="If the text has moved"):
        main(["--resume", "r", "--steps", "20"])
    assert main(["--resume", "r", "--steps", "20", "--dataset", "moved.jsonl"]) == 0


def test_a_mix_of_streams_can_be_resumed(here):
    for number in range(2):
        rows = (json.dumps({"text": some_text(300, seed=n)}) + "\n" for n in range(number, 100, 2))
        (here / f"{number}.jsonl").write_text("".join(rows))
    mix = ["--dataset", "0.jsonl", "--dataset", "1.jsonl", "--mix", "0.7,0.3"]
    command = [*mix, "--streaming", "--shuffle-buffer", "5"]
    assert main([*command, *COMMAND[2:], "--steps", "10", "--out", "r"]) == 0
    assert main(["--resume", "r", "--steps", "20"]) == 0
    assert progress(here / "r")["step"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--streaming"]])
def test_a_setting_that_an_earlier_version_ignored_does_not_stop_a_run(here, monkeypatch, more):
    (here / "boat.txt").write_text("\n\n".join(some_text(300, seed=n) for n in range(100)))
    command = [*COMMAND, *more, "--document-separator", "blank-line", "--no-header", "--steps", "20"]
    with monkeypatch.context() as earlier:
        earlier.setattr("lm.data.find_source.check_settings", lambda *_: None)
        assert main([*command, "--out", "r"]) == 0
    monkeypatch.setenv("LM_CACHE", str(here / "cache"))  # the tokens are gone
    assert main(["--resume", "r", "--steps", "30"]) == 0
    assert read_metrics(Run(here / "r"))[-2]["step"] == 30
    assert evaluate(["r"]) == 0
    with pytest.raises(UserError, match="--no-header applies only to CSV"):
        main([*command, "--out", "s"])


def test_another_text_is_no_text_of_a_finished_run(here):
    assert main([*COMMAND, "--steps", "50", "--out", "r"]) == 0
    (here / "other.txt").write_text(some_text(10_000, seed=3))
    with pytest.raises(UserError, match=r"^r cannot be resumed: the text of other has changed"):
        main(["--resume", "r", "--dataset", "other.txt"])
    assert main(["--resume", "r", "--dataset", "boat.txt"]) == 0


@pytest.mark.slow
def test_a_text_that_is_named_in_the_file_is_read(here):
    assert main([*COMMAND, "--steps", "10", "--out", "r"]) == 0
    (here / "other.txt").write_text(some_text(20_000, seed=1))
    edit_config(here / "r", dataset=["other.txt"])
    with pytest.raises(UserError, match=r"^r cannot be resumed: the text of other has changed"):
        main(["--resume", "r", "--steps", "20"])
    (here / "other.txt").write_text(some_text(20_000))
    assert main(["--resume", "r", "--steps", "20"]) == 0
    assert json.loads((here / "r/config.json").read_text())["trained_on"]["dataset"] == "other.txt"
