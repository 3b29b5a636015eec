"""What a run says about its training: enough to repeat it, and no local paths."""

import json
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors import safe_open

import lm
from lm.cli.train import main
from lm.storage.model_folder import FILES, PRETRAINED
from lm.storage.run_folder import Run
from tests.conftest import some_text
from tests.storage.test_model_card import blocks

TINY = ["--hidden-size", "8", "--layers", "1", "--batch-size", "4", "--bptt", "8", "--sample-every", "0"]


@pytest.fixture
def private(tmp_path, monkeypatch):
    """A folder that nobody else should know of."""
    folder = tmp_path / "ann" / "secret project"
    folder.mkdir(parents=True)
    (folder / "my text.txt").write_text(some_text(3000))
    monkeypatch.chdir(tmp_path)
    return folder


def trained_on(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())["trained_on"]


def command(run: Path) -> list[str]:
    """The arguments of `lm train` in a card."""
    return shlex.split(blocks((run / "README.md").read_text(), "bash")[1])[2:]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_command_in_the_card_repeats_the_training(private, monkeypatch):
    text = str(private / "my text.txt")
    options = ["--dataset", text, *TINY, "--steps", "20", "--dropout", "0.2", "--residual", "--tie"]
    assert main([*options, "--clip", "0.5", "--no-locked-dropout", "--out", "first"]) == 0
    first = Path("first").resolve()
    found = command(first)
    for flag in ("--tie", "--no-locked-dropout", "--steps", "--lr"):
        assert flag in found
    for flag in ("--out", "--residual", "--sample-every", "--cell", "--tokenizer"):  # incidental, or default
        assert flag not in found
    monkeypatch.chdir(private)
    assert main([*found, "--out", "again"]) == 0
    assert weights(first) == weights(private / "again")


def test_nothing_that_is_shared_names_a_folder(private, tmp_path):
    text, base = str(private / "my text.txt"), private.parent / "secret models" / "base"
    assert main(["--dataset", text, *TINY, "--steps", "4", "--out", str(base)]) == 0
    (private / "more.txt").write_text(some_text(2000, 1))
    tokenizer = str(base / "tokenizer.json")
    fine_tuned = ["--init-from", str(base), "--steps", "2", "--out", "tuned"]
    assert main(["--dataset", text, "--dataset", "./ann/secret project/", *fine_tuned, *TINY[4:]]) == 0
    assert main(["--dataset", text, "--tokenizer", tokenizer, *TINY, "--steps", "2", "--out", "third"]) == 0
    for run in (base, Path("tuned"), Path("third")):
        for name in FILES:
            content = (run / name).read_bytes()
            assert str(tmp_path).encode() not in content
            assert not re.search(rb"ann|secret (models|project)/", content)
        with safe_open(run / "model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}
    tuned = trained_on(Path("tuned"))
    assert tuned["dataset"] == "my text.txt + secret project"
    assert (tuned["init_from"], "base_model" in tuned) == ("base", False)
    assert tuned["settings"]["init_from"] == "base" and "tokenizer" not in tuned["settings"]
    assert trained_on(Path("third"))["settings"]["tokenizer"] == "tokenizer.json"
    card = ModelCard.load(Path("tuned") / "README.md")
    assert "Fine-tuned from `base`." in card.text
    assert not {"base_model", "datasets", "language", "license"} & card.data.to_dict().keys()


@pytest.mark.slow
def test_the_command_of_a_fine_tuned_model_repeats_its_training(private, monkeypatch):
    text = ["--dataset", str(private / "my text.txt")]
    base = ["--steps", "4", "--no-locked-dropout", "--cell", "gru", "--no-residual", "--out", "base"]
    assert main([*text, *TINY, *base]) == 0
    tuned = ["--init-from", "base", "--locked-dropout", "--dropout", "0.3", "--steps", "6"]
    assert main([*text, *TINY[4:], *tuned, "--out", "first"]) == 0
    Path("base").rename(private / "base")
    first = Path("first").resolve()
    monkeypatch.chdir(private)
    assert main([*command(first), "--out", "again"]) == 0
    assert weights(first) == weights(private / "again")
    other = ["--init-from", "base", "--tokenizer", str(first / "tokenizer.json"), "--steps", "2"]
    assert main(["--dataset", "my text.txt", *other, *TINY[4:], "--out", "third"]) == 0
    assert trained_on(private / "third")["settings"]["tokenizer"] == "tokenizer.json"


def test_the_command_of_a_model_that_starts_from_the_pretrained_one_leaves_its_tokenizer_out(private):
    (private / "pretrained").mkdir()  # is not meant from elsewhere
    flags = ["--batch-size", "4", "--bptt", "8", "--sample-every", "0", "--steps", "1"]
    text = ["--dataset", str(private / "my text.txt")]
    assert main([*text, "--init-from", "pretrained", *flags, "--out", "tuned"]) == 0
    assert trained_on(Path("tuned"))["settings"]["init_from"] == "pretrained"
    assert "--tokenizer" not in command(Path("tuned"))
    other = ["--init-from", "tuned", "--tokenizer", str(PRETRAINED / "tokenizer.json")]
    assert main([*text, *other, *flags, "--out", "third"]) == 0
    assert "--tokenizer" in command(Path("third"))


def test_a_command_with_a_time_says_that_steps_depend_on_the_machine(private):
    text = str(private / "my text.txt")
    for name, budget in (("timed", ["--max-time", "1"]), ("counted", ["--steps", "2"])):
        assert main(["--dataset", text, *TINY, *budget, "--out", name]) == 0
        card = (Path(name) / "README.md").read_text()
        assert ("depends on the machine" in card) == (name == "timed")


def test_of_a_streamed_text_it_counts_what_was_read(private):
    (private / "lines.txt").write_text("\n".join(f"boat {n:02} goes to the sea" for n in range(100)))
    how = ["--streaming", "--document-separator", "line", *TINY]
    assert main(["--dataset", str(private / "lines.txt"), *how, "--steps", "5", "--out", "run"]) == 0
    facts = trained_on(Path("run"))
    assert facts["tokens"] == facts["steps"] * 4 * 8
    assert (facts["documents"], facts["characters"]) == (7, 153)  # a line has 23 characters and an end


@pytest.mark.parametrize(("steps", "times"), [(1, 0), (28, 1), (60, 2)])
def test_a_streamed_text_begins_after_an_end_however_often_it_was_read(private, steps, times):
    folder = private / "fold"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.txt").write_text(some_text(900))
    how = ["--streaming", "--precision", "fp32", *TINY, "--steps", str(steps)]
    assert main(["--dataset", str(folder), *how, "--out", "run"]) == 0
    model = lm.load("run", device="cpu")
    assert model.facts["trained_on"]["documents"] == times
    assert model.start_token == model.tokenizer.eos
    found = lm.evaluate(model, (folder / "validation.txt").read_text())
    assert found.loss == pytest.approx(model.facts["validation"]["loss"], rel=1e-6)


def test_of_thousands_of_texts_it_names_the_first(private):
    names = [f"{number}.txt" for number in range(103)]
    for number, name in enumerate(names):
        (private / name).write_text(f"the sea {number}\n")
    texts = [private / name for name in names]
    lm.train(texts, hidden_size=8, layers=1, batch_size=4, bptt=8, steps=1, quiet=True, out="run")
    assert trained_on(Path("run"))["dataset"] == " + ".join([*names[:100], "3 more"])
    assert "3 more" in command(Path("run")) and "101.txt" not in command(Path("run"))
    assert Run(Path("run")).settings()["dataset"] == list(map(str, texts))


def test_a_local_folder_named_python_is_not_the_library(private, tmp_path):
    (private / "my text.txt").rename(private / "python")
    assert main(["--dataset", str(private / "python"), *TINY, "--steps", "2", "--out", "run"]) == 0
    assert trained_on(Path("run"))["dataset"] == "./python"
    assert "language" not in ModelCard.load(Path("run") / "README.md").data.to_dict()
