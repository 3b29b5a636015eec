"""The table of models, the card as harmless HTML, the zip file, and whether a run goes on."""

import json
import os
import re
import shutil
import time
import zipfile

import pytest

import lm
from app.registry import SHIPPED, ModelRegistry
from app.tabs.models.catalog import being_trained, card, entries, pack
from lm import saving
from lm.errors import UserError

HOSTILE = """---
tags: [x]
---
# Title <script>alert(1)</script>

<img src=x onerror=alert(2)> ![picture](http://elsewhere.example/track.png) [bad](javascript:alert(3))

[ref]: http://elsewhere.example/x.png
![ref]

| a | b |
|---|---|
| **1** | `<unk>` |

<iframe src="http://elsewhere.example"></iframe>

    <b>code</b>
"""


@pytest.fixture
def runs(tmp_path, trained_run, backward_run, monkeypatch):
    monkeypatch.setattr(saving, "PRETRAINED", tmp_path / "none")
    for age, (name, run) in enumerate({"boat": trained_run, "taob": backward_run}.items()):
        shutil.copytree(run, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "model.safetensors", (1e9 - age, 1e9 - age))
    return tmp_path / "runs"


def change(folder, **changed):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    return config


def test_a_model_is_told_with_what_its_config_says(runs):
    config = json.loads((runs / "boat/config.json").read_text())
    boat, taob = entries(ModelRegistry([runs]))
    assert (boat.name, boat.cell, boat.layers, boat.hidden, boat.backward) == ("boat", "LSTM", 1, 32, False)
    assert (boat.parameters, boat.tokenizer, boat.vocabulary) == (
        config["parameters"],
        "char",
        config["vocab_size"],
    )
    assert boat.bits_per_character == config["validation"]["bits_per_character"]
    assert boat.perplexity == config["validation"]["perplexity"]
    assert boat.dataset == "boat.txt" and boat.changed == 1e9
    assert taob.backward


@pytest.mark.parametrize(
    ("query", "found"),
    [("", "boat taob"), ("BOAT", "boat taob"), ("taob", "taob"), ("lstm char", "boat taob"),
     ("backward", "taob"),
     ("1×32", "boat taob"), ("lstm taob 32", "taob"), ("gru", ""), ("lstm gru", "")],
)  # fmt: skip
def test_the_table_holds_what_has_all_words_of_a_query(runs, query, found):
    assert [entry.name for entry in entries(ModelRegistry([runs]), query)] == found.split()


def test_a_config_of_nonsense_is_a_row_with_empty_cells(runs):
    change(runs / "boat", model=[], parameters="many", trained_on=None, validation={"perplexity": True})
    boat, _ = entries(ModelRegistry([runs]))
    assert (boat.cell, boat.layers, boat.parameters, boat.dataset, boat.perplexity) == (
        "",
        None,
        None,
        "",
        None,
    )


def test_the_shipped_model_is_in_the_table(runs, monkeypatch, trained_run):
    monkeypatch.setattr(saving, "PRETRAINED", trained_run)
    assert entries(ModelRegistry([runs]))[-1].name == SHIPPED


def test_the_card_is_shown_as_the_model_came_with_it(runs):
    html = card(runs / "boat")
    assert "<h1>boat</h1>" in html and "<table>" in html and "pipeline_tag" not in html
    assert "boat.txt" in html and str(runs) not in html


def test_a_card_holds_no_script_no_picture_and_no_html_of_its_own(runs):
    (runs / "boat/README.md").write_text(HOSTILE)
    html = card(runs / "boat")
    for tag in ("<script", "<img", "<iframe", "<b>", "javascript:"):
        assert tag not in html.replace("(javascript:", "")
    assert "<strong>1</strong>" in html and "<code>&lt;unk&gt;</code>" in html and "&lt;b&gt;code" in html
    links = re.findall(r"<a [^>]*>", html)
    assert len(links) == 2  # what were pictures
    assert all('href="http://elsewhere' in link and 'target="_blank" rel="noopener' in link for link in links)


def test_a_model_without_a_card_or_with_one_that_is_no_text_is_no_error(runs):
    (runs / "boat/README.md").write_bytes(b"\xff\x00 <x>")
    assert "&lt;x&gt;" in card(runs / "boat")
    (runs / "boat/README.md").unlink()
    assert card(runs / "boat") == ""


def test_what_is_packed_is_the_model_without_its_checkpoint(runs, tmp_path):
    assert (runs / "boat/training/checkpoint").is_dir()
    path = pack(runs / "boat", tmp_path)
    assert path == tmp_path / "boat.zip"
    with zipfile.ZipFile(path) as packed:
        assert sorted(packed.namelist()) == [
            f"boat/{name}" for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json")
        ]
        packed.extractall(tmp_path / "out")
    (one,), (two,) = (
        lm.load(f / "boat", device="cpu").generate("The ", seed=1) for f in (runs, tmp_path / "out")
    )
    assert one == two


def test_of_a_path_on_this_computer_only_the_last_part_is_packed(runs, tmp_path):
    config = json.loads((runs / "boat/config.json").read_text())
    dataset = config["trained_on"]["dataset"]
    assert os.path.isabs(dataset) and dataset in (runs / "boat/README.md").read_text()
    with zipfile.ZipFile(pack(runs / "boat", tmp_path)) as packed:
        texts = {name: packed.read(f"boat/{name}").decode() for name in ("config.json", "README.md")}
    assert os.path.dirname(dataset) not in texts["config.json"] + texts["README.md"]
    packed = json.loads(texts["config.json"])
    assert packed == config | {"trained_on": config["trained_on"] | {"dataset": "boat.txt"}}


def test_a_disk_that_is_full_is_one_line(runs, tmp_path):
    with pytest.raises(UserError, match="'boat' cannot be packed"):
        pack(runs / "boat", tmp_path / "absent")


def test_a_run_that_wrote_something_within_a_minute_goes_on_unless_it_has_finished(runs):
    run = runs / "boat"
    files = [run / "training" / name for name in ("metrics.jsonl", "checkpoint", "config.yaml")]
    assert not being_trained(run)  # it has just been made, and spent its budget
    progress = run / "training/checkpoint/progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"finished": False}))
    for file in files:
        os.utime(file, (0, time.time() - 61))
    assert not being_trained(run)
    for file in files:
        os.utime(file, (0, time.time() - 30))
        assert being_trained(run)
        os.utime(file, (0, time.time() - 61))
    shutil.rmtree(run / "training")  # a saved model
    assert not being_trained(run)
