"""facts.json: what a run reports about itself to other programs."""

import json
import re

import pytest

from lm.cli.train import main
from lm.config.schema import RunConfig
from lm.storage.run_folder import Run
from lm.training.facts import Facts, read_facts
from tests.conftest import SMALL

FACTS = Facts({"Text": "a"}, "LSTM", "cpu", "10 steps", 10, 1.5, {"cell": "lstm"}, ["little text"])


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    run.training.mkdir()
    return run


def test_facts_are_read_as_they_were_saved(run):
    assert read_facts(run) is None
    FACTS.save(run)
    assert read_facts(run) == FACTS


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b"\xff", b'{"text": {}', b'{"text": [], "warnings": {}}', b"[" * 100_000],
)
def test_damaged_or_foreign_facts_count_as_missing(run, content):
    run.facts.write_bytes(content)
    assert read_facts(run) is None


@pytest.mark.parametrize("name", list(vars(FACTS)))
def test_facts_with_a_value_of_the_wrong_type_count_as_missing(run, name):
    wrong = 5 if name != "total_steps" and name != "characters_per_token" else "5"
    run.facts.write_text(json.dumps(vars(FACTS) | {name: wrong}))
    assert read_facts(run) is None


@pytest.mark.slow
def test_a_run_records_what_it_prints(run, text_file, capsys):
    options = [
        "--dataset",
        text_file,
        *SMALL,
        "--epochs",
        0.3,
        "--hidden-size",
        320,
        "--out",
        run.folder / "r",
    ]
    assert main([str(option) for option in options]) == 0
    shown, facts = capsys.readouterr().out, read_facts(Run(run.folder / "r"))
    assert facts is not None
    rows = {"Model": facts.model, "Recipe": facts.recipe, "Budget": facts.budget}
    for name, value in (*facts.text.items(), *rows.items()):
        assert f"{name:{len('Compute') + 2}}{value}" in shown or f"{name:8}{value}" in shown
    assert facts.budget.startswith(f"{facts.total_steps:,} steps, ")
    assert [f"warning: {line}" for line in facts.warnings] == [
        line for line in shown.splitlines() if line.startswith("warning: ")
    ]
    assert facts.warnings and facts.compute.startswith("cpu (") and facts.characters_per_token == 1
    assert RunConfig.from_flat(facts.settings).model.hidden_size == 320
    assert "auto" not in [facts.settings[name] for name in ("lr", "dropout", "embedding_size")]


@pytest.mark.parametrize(
    ("settings", "recipe"),
    [
        (["--lr", "0.0125", "--dropout", "0.3"], "muon, learning rate 0.0125, dropout 0.3 (input "),
        (["--dropout", "0.2", "--input-dropout", "0.2", "--output-dropout", "0.1"], " 0.2 (output 0.1"),
        (
            ["--dropout", "0.2", "--input-dropout", "0.1", "--output-dropout", "0"],
            " 0.2 (input 0.1, output 0",
        ),
        (["--preset", "words", "--dropout", "0.5"], ", embedding 0.1)"),
    ],
)
def test_whatever_auto_chose_is_printed(run, text_file, capsys, settings, recipe):
    command = ["--dataset", text_file, *SMALL, "--steps", 1, *settings, "--out", run.folder / "r"]
    assert main(list(map(str, command))) == 0
    facts = read_facts(Run(run.folder / "r"))
    assert facts is not None and recipe in facts.recipe
    (shown,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Recipe"))
    chosen = {name: f"{value:g}" for name, value in facts.settings.items() if name in ("lr", "dropout")}
    chosen |= {name: f"{facts.settings[f'{name}_dropout']:g}" for name in ("input", "output", "weight")}
    written = dict(re.findall(r"(learning rate|dropout|input|output|weight) ([\d.e-]+)", shown))
    assert written.pop("learning rate") == chosen.pop("lr")
    assert dict.fromkeys(chosen, written["dropout"]) | written == chosen
    assert f"embeddings of {facts.settings['embedding_size']}, " in facts.model
