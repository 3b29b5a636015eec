"""The labels of models in dropdowns."""

import json
import shutil

import pytest

from app.registry import ModelRegistry
from app.ui.model_choices import choices, first_choice, label


@pytest.fixture
def run(tmp_path, trained_run):
    return shutil.copytree(trained_run, tmp_path / "runs" / "boat")


def changed(run, **parts):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | parts))
    return run


def test_a_label_has_the_name_cell_dataset_and_bits(run):
    changed(run, validation={"bits_per_character": 2.2549})
    assert label("boat", run) == "boat · LSTM · boat · 2.25 bits"


def test_the_choices_are_labels_and_names(run):
    found = choices(ModelRegistry([run.parent]))
    assert [name for _, name in found] == ["boat", "pretrained"]
    assert found[1][0].startswith("pretrained · LSTM · python · 1.")


def test_the_first_choice_can_continue_a_text(run):
    models = ModelRegistry([run.parent])
    assert first_choice(models) == "boat"
    model = json.loads((run / "config.json").read_text())["model"]
    changed(run, model=model | {"direction": "backward"})
    assert first_choice(models) == "pretrained"


def test_a_long_name_leaves_the_figures_in_view(run):
    changed(run, trained_on={"dataset": "d" * 200 + ".txt"}, validation={"bits_per_character": 1})
    shown = label("a" * 40 + "z" * 40, run)
    name, cell, _, bits = shown.split(" · ")
    assert name.startswith("aaa") and name.endswith("zzz") and "…" in name
    assert (cell, bits) == ("LSTM", "1.00 bits") and len(shown) <= 49


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("红楼梦第一回甄士隐梦幻识通灵", "红楼梦第…幻识通灵"),
        ("MWMWMWMWMWMW", "MWMW…MWMW"),
        ("a title of 17 let", "a title of 17 let"),
    ],
)
def test_wide_characters_take_more_columns(run, name, shown):
    assert label(name, run).startswith(f"{shown} · LSTM")


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("/home/me/My novel.txt", "My novel"),
        ("data/Shakespeare.txt", "Shakespeare"),
        ("karpathy/tiny_shakespeare", "tiny_s…peare"),
        ("/a/b.txt + org/set", "b + set"),
        (7, ""),
    ],
)
def test_the_dataset_has_no_folder_and_no_suffix(run, dataset, shown):
    changed(run, trained_on={"dataset": dataset}, validation=[])
    assert label("boat", run) == " · ".join(filter(None, ("boat", "LSTM", shown)))


def test_a_model_that_has_just_been_deleted_keeps_its_name(tmp_path):
    assert label("gone", tmp_path / "gone") == "gone"
