"""The list of models, cards as harmless HTML, zip files, and whether a run is in progress."""

import json
import os
import re
import shutil
import time
import zipfile

import pytest

import lm
from app.registry import SHIPPED, ModelRegistry
from app.tabs.models import catalog
from app.tabs.models.catalog import entries, pack, render_card
from lm.errors import UserError
from lm.storage import model_folder

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
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path / "none")
    for age, (name, run) in enumerate({"boat": trained_run, "taob": backward_run}.items()):
        shutil.copytree(run, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "model.safetensors", (1e9 - age, 1e9 - age))
    return tmp_path / "runs"


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_an_entry_has_the_facts_of_the_config(runs):
    config = json.loads((runs / "boat/config.json").read_text())
    boat, taob = entries(ModelRegistry([runs]))
    assert (boat.name, boat.cell, boat.layers, boat.hidden_size) == ("boat", "LSTM", 1, 32)
    facts = boat.parameters, boat.tokenizer, boat.vocab_size
    assert facts == (config["parameters"], "char", config["vocab_size"])
    assert boat.bits_per_character == config["validation"]["bits_per_character"]
    assert boat.dataset == "boat.txt" and boat.modified == 1e9
    assert taob.backward and not boat.backward


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "boat taob"),
        ("BOAT", "boat taob"),
        ("taob", "taob"),
        ("lstm char", "boat taob"),
        ("backward", "taob"),
        ("1×32", "boat taob"),
        ("lstm taob 32", "taob"),
        ("gru", ""),
        ("lstm gru", ""),
    ],
)
def test_a_query_finds_the_models_with_all_its_words(runs, query, found):
    assert [entry.name for entry in entries(ModelRegistry([runs]), query)] == found.split()


def test_invalid_config_values_are_left_empty(runs):
    edit_config(
        runs / "boat", model=[], parameters="many", trained_on=None, validation={"bits_per_character": True}
    )
    boat, _ = entries(ModelRegistry([runs]))
    assert boat.cell == boat.dataset == ""
    assert boat.layers is boat.parameters is boat.bits_per_character is None


def test_the_shipped_model_is_listed_last(runs, monkeypatch, trained_run):
    monkeypatch.setattr(model_folder, "PRETRAINED", trained_run)
    assert entries(ModelRegistry([runs]))[-1].name == SHIPPED


def test_the_card_is_rendered_without_its_metadata_and_local_paths(runs):
    html = render_card(runs / "boat")
    assert "<h1>boat</h1>" in html and "<table>" in html and "pipeline_tag" not in html
    assert "boat.txt" in html and str(runs) not in html


def test_headers_without_text_are_plain_cells(runs):
    (runs / "boat/README.md").write_text("| | loss |\n|---|---|\n| test | 1 |\n")
    html = " ".join(render_card(runs / "boat").split())
    assert "<tr> <td></td> <th>loss</th> </tr>" in html and "<td>test</td>" in html


def test_a_card_has_no_scripts_images_or_html_of_its_own(runs):
    (runs / "boat/README.md").write_text(HOSTILE)
    html = render_card(runs / "boat")
    for tag in ("<script", "<img", "<iframe", "<b>", "javascript:"):
        assert tag not in html.replace("(javascript:", "")
    assert "<strong>1</strong>" in html and "<code>&lt;unk&gt;</code>" in html and "&lt;b&gt;code" in html
    links = re.findall(r"<a [^>]*>", html)
    assert len(links) == 2  # instead of images
    assert all('href="http://elsewhere' in link and 'target="_blank" rel="noopener' in link for link in links)


def test_a_missing_or_binary_card_is_no_error(runs):
    (runs / "boat/README.md").write_bytes(b"\xff\x00 <x>")
    assert "&lt;x&gt;" in render_card(runs / "boat")
    (runs / "boat/README.md").unlink()
    assert render_card(runs / "boat") == ""


@pytest.mark.slow
def test_the_zip_contains_the_model_without_its_checkpoint(runs, tmp_path):
    assert (runs / "boat/training/checkpoint").is_dir()
    path = pack(runs / "boat", tmp_path)
    assert path == tmp_path / "boat.zip"
    with zipfile.ZipFile(path) as packed:
        assert sorted(packed.namelist()) == [
            f"boat/{name}"
            for name in (
                "README.md",
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            )
        ]
        packed.extractall(tmp_path / "out")
    original, unpacked = (
        lm.load(folder / "boat", device="cpu").generate("The ", seed=1) for folder in (runs, tmp_path / "out")
    )
    assert original == unpacked


def test_files_in_the_zip_have_their_times_but_not_their_permissions(runs, tmp_path):
    (runs / "boat/model.safetensors").chmod(0o444)
    os.utime(runs / "boat/README.md", (0, 0))  # before the first time that a zip file can have
    with zipfile.ZipFile(pack(runs / "boat", tmp_path)) as packed:
        assert packed.testzip() is None
        assert packed.getinfo("boat/model.safetensors").date_time == time.localtime(1e9)[:6]
        assert packed.getinfo("boat/README.md").date_time == (1980, 1, 1, 0, 0, 0)
        assert {member.external_attr >> 16 for member in packed.infolist()} == {0o600}


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "config.json", "model.safetensors"])
def test_a_link_that_leaves_the_folder_is_neither_packed_nor_shown(runs, tmp_path, name):
    secret = tmp_path / "secret"
    shutil.move(runs / "boat" / name, secret)
    secret.write_bytes(b"SECRET " + secret.read_bytes())
    (runs / "boat" / name).symlink_to(secret)
    (tmp_path / "zips").mkdir()
    with pytest.raises(UserError, match=f"{name} is a link that leaves its folder"):
        pack(runs / "boat", tmp_path / "zips")
    assert "SECRET" not in render_card(runs / "boat")


def test_weights_that_declare_any_size_are_not_packed(runs, tmp_path):
    os.truncate(runs / "boat/model.safetensors", 1 << 40)
    with pytest.raises(UserError, match="memory"):
        pack(runs / "boat", tmp_path)
    assert not list(tmp_path.glob("*.zip"))


def test_old_and_future_files_are_listed_and_packed(runs, tmp_path):
    for seconds in (0, 15_000_000_000):
        os.utime(runs / "boat/model.safetensors", (seconds, seconds))
        assert any(entry.modified == seconds for entry in entries(ModelRegistry([runs])))
        assert pack(runs / "boat", tmp_path).is_file()


def test_a_long_or_odd_name_in_the_configuration_is_shortened(runs):
    config = json.loads((runs / "boat/config.json").read_text())
    config["tokenizer"] = "x" * 100_000
    config["model"]["cell"] = "\x1b[31m\nred"
    (runs / "boat/config.json").write_text(json.dumps(config))
    (entry,) = (entry for entry in entries(ModelRegistry([runs])) if entry.name == "boat")
    assert entry.tokenizer == "x" * 199 + "…" and entry.cell == "\ufffd[31M RED"


def test_local_paths_that_earlier_versions_wrote_are_neither_packed_nor_shown(runs, tmp_path):
    config = json.loads((runs / "boat/config.json").read_text())
    paths = {"dataset": '/home/ann "a" é/boat.txt', "init_from": "../models/base"}
    old = config | {"trained_on": config["trained_on"] | paths}
    (runs / "boat/config.json").write_text(json.dumps(old, ensure_ascii=False))
    card = (runs / "boat/README.md").read_text().replace("`boat.txt`", f"`{paths['dataset']}`")
    (runs / "boat/README.md").write_text(card)
    with zipfile.ZipFile(pack(runs / "boat", tmp_path)) as packed:
        texts = {name: packed.read(f"boat/{name}").decode() for name in ("config.json", "README.md")}
    for text in (*texts.values(), render_card(runs / "boat")):
        assert "ann" not in text and "../models" not in text
    names = {"dataset": "boat.txt", "init_from": "base"}
    assert json.loads(texts["config.json"]) == config | {"trained_on": config["trained_on"] | names}
    assert "`boat.txt`" in texts["README.md"]


def test_a_zip_that_cannot_be_written_is_a_one_line_error(runs, tmp_path):
    with pytest.raises(UserError, match="cannot pack 'boat'"):
        pack(runs / "boat", tmp_path / "absent")


def test_a_model_with_too_many_weights_is_not_exported(tmp_path, trained_run, monkeypatch):
    monkeypatch.setattr(catalog, "_MAX_EXPORTED", 100)
    with pytest.raises(UserError, match="this page exports at most 100"):
        catalog.export_folder(trained_run, tmp_path / "model.html")
    assert not list(tmp_path.iterdir())
