"""The showcase: which units are shown, the text they color, and that each model's is computed once."""

import os
import shutil

import gradio as gr
import numpy as np
import pytest

import lm
from app.registry import ModelRegistry
from app.showcase import exhibits, view
from app.showcase.exhibits import Showcases, create
from app.showcase.starters import starter
from lm.insight.properties import brackets
from lm.insight.trace import trace_text
from lm.insight.units import CLEAR_SCORE


@pytest.fixture
def registry(tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "boat")
    return ModelRegistry([tmp_path])


@pytest.fixture(scope="module")
def shipped():
    return create(lm.load("pretrained", device="cpu"))


def test_a_unit_of_the_shipped_model_colors_what_it_recognizes(shipped):
    assert shipped.units == 2 * 256
    exhibit = next(exhibit for exhibit in shipped.exhibits if exhibit.property == "brackets")
    inside = brackets(exhibit.text)
    levels = np.array(exhibit.colors["levels"])  # a token is a character
    assert len(levels) == len(inside) and 10 < inside.sum() < len(inside) - 10
    assert levels[inside].mean() > 1 and levels[~inside].mean() < 0


def test_shown_units_have_convincing_scores_on_both_parts_of_the_text(shipped):
    assert len(shipped.exhibits) > 3
    for exhibit in shipped.exhibits:
        unit = exhibit.unit
        assert min(unit.score, unit.selection_score) >= CLEAR_SCORE[exhibit.measure]
        assert 0 < len(exhibit.text) <= 420 and exhibit.text.count("\n") < 7


def test_a_model_without_a_convincing_unit_shows_its_surprisal(registry, monkeypatch):
    for measure in CLEAR_SCORE:
        monkeypatch.setitem(CLEAR_SCORE, measure, 1.1)
    (exhibit,) = Showcases(registry).of("boat").exhibits
    assert view._colors(exhibit)["tooltips"][0] == f"{exhibit.colors['tooltips'][0]} bits"
    assert exhibit.unit is None and any(exhibit.colors["levels"])
    assert min(exhibit.colors["levels"]) >= 0 and "".join(exhibit.colors["tokens"]) == exhibit.text


def test_a_showcase_is_computed_once_until_the_model_changes(registry, monkeypatch):
    computed = []
    original = exhibits.create
    monkeypatch.setattr(exhibits, "create", lambda model: computed.append(model) or original(model))
    showcases = Showcases(registry)
    first = showcases.of("boat")
    assert showcases.of("boat") is first and len(computed) == 1
    os.utime(registry.folder("boat") / "model.safetensors", (1, 1))
    assert showcases.of("boat") is not first and len(computed) == 2


def test_the_number_of_stored_showcases_is_bounded(registry, monkeypatch):
    monkeypatch.setattr(exhibits, "_CACHE_SIZE", 1)
    showcases = Showcases(registry)
    showcases.of("boat")
    os.utime(registry.folder("boat") / "model.safetensors", (1, 1))
    showcases.of("boat")
    assert list(showcases._found) == [registry.fingerprint("boat")]


def test_the_first_visitor_finds_the_first_model_prepared(registry):
    showcases = Showcases(registry)
    showcases.prepare().join()
    assert list(showcases._found) == [registry.fingerprint("boat")]


def test_the_page_can_ask_for_any_number_but_for_nothing_else(registry):
    with gr.Blocks():
        shown = view.ShowcaseView(Showcases(registry), gr.Dropdown())
    count = len(shown._showcases.of("boat").exhibits)
    first, again = (shown.on_show("boat", gr.EventData(None, {"index": index})) for index in (0, count))
    assert first == again and first[0]["heading"]
    with pytest.raises(gr.Error, match="The page sent an invalid value"):
        shown.on_show("boat", gr.EventData(None, {"index": "0"}))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_joined_texts_have_the_states_of_each(direction, trained_run, backward_run):
    model = lm.load(trained_run if direction == "forward" else backward_run, device="cpu")
    traces = [trace_text(model, text) for text in ("The sea was calm.", "The boat", "a night")]
    joined = exhibits._joined(traces)
    assert joined.text == "The sea was calm.The boata night"
    assert [joined.text[a:b] for a, b in zip(joined.starts, joined.ends, strict=True)] == list(joined.text)
    for name in ("h", "c"):
        expected = np.concatenate([trace.values(0, name) for trace in traces])
        np.testing.assert_allclose(joined.values(0, name), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["char", "bpe", "word", "byte", "back"])
def test_every_kind_of_model_has_a_showcase(api_runs, name):
    shown = create(lm.load(api_runs / name, device="cpu"))
    assert shown.exhibits and all("".join(e.colors["tokens"]).strip() for e in shown.exhibits)


def test_an_example_is_the_last_complete_sample_of_the_training(registry):
    showcases = Showcases(registry)
    samples = registry.folder("boat") / "training" / "samples.txt"
    samples.write_text("--- step 5\nFirst\n\n--- step 10\nThe sea\n\nThe boat\n\n--- step 15\nhalf-wri")
    assert starter(showcases, registry, "boat") == "The sea\n\nThe boat"
    assert not showcases._found  # nothing was computed
    samples.unlink()
    assert starter(showcases, registry, "boat") == showcases.of("boat").exhibits[0].text


def test_samples_outside_the_folder_of_the_model_are_not_read(registry, tmp_path):
    samples = registry.folder("boat") / "training" / "samples.txt"
    secret = tmp_path / "secret.txt"
    secret.write_text("--- step 5\nsecret\n\n")
    samples.unlink()
    samples.symlink_to(secret)
    assert "secret" not in starter(Showcases(registry), registry, "boat")
