"""The drawn cell in the Look inside tab."""

from xml.etree import ElementTree

import pytest
import torch

from lm.insight.trace import trace_text
from lm.insight.walkthrough import walk_through
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.inside.tab import TEXT
from tests.insight.networks import make

pytestmark = pytest.mark.browser
STRIPS = {"rnn": ["h′"], "gru": ["r", "z", "n", "h′"], "lstm": ["c′", "f", "i", "o", "h′"]}


def drawn(page):
    """The numbers in the drawn cell: the values on its wires and those of its gates, by name."""
    return page.tab.evaluate("""() => Object.fromEntries([...document.querySelectorAll(
        "#inside-cell [data-name]:not([data-name=sum]), #inside-cell [data-gate-value]")].map(
        (e) => [e.dataset.name ?? e.dataset.gateValue, e.textContent]))""")


def walked(model, token, layer=0, unit=0, text=TEXT * 3):
    """What should be in the drawn cell."""
    step = walk_through(trace_text(model, text), token, layer, unit)
    states = {"h'": step.h} | ({"c": step.c_before, "c'": step.c} if step.c is not None else {})
    values = {gate.name: gate.value for gate in step.gates} | step.products | states
    return {name: f"{value:+.3f}" for name, value in values.items()}


def test_a_click_draws_the_cell_and_arrow_keys_move_it_through_the_text(page, model):
    page.tab.locator("#inside-view [data-index='30']").click()
    cell = page.tab.locator("#inside-cell")
    page.wait_for(lambda: walked(model, 30).items() <= drawn(page).items())
    step = walk_through(trace_text(model, TEXT * 3), 30, 0, 0)
    for equation in step.equations:
        for part in equation.numbers.split(" = "):
            assert f"= {part.replace(chr(39), '′')}" in cell.locator(".formulas").inner_text()
    assert "Orange: above zero. Blue: below zero." in "".join(cell.locator("svg text").all_text_contents())
    cell.locator(".diagram").focus()
    for token in (31, 32):
        page.tab.keyboard.press("ArrowRight")
        assert walked(model, token).items() <= drawn(page).items()
    for _ in range(100):  # beyond the steps that the browser has
        page.tab.keyboard.press("ArrowRight")
    page.wait_for(lambda: walked(model, 132).items() <= drawn(page).items())
    assert page.tab.locator("#inside-view .pointed").get_attribute("data-index") == "132"
    gate = cell.locator("[data-gate].selected").get_attribute("data-gate")
    page.tab.keyboard.press("ArrowDown")
    assert cell.locator("[data-gate].selected").get_attribute("data-gate") != gate
    page.tab.locator("#inside-unit input").fill("5")
    page.tab.locator("#inside-unit input").press("Tab")
    page.wait_for(lambda: walked(model, 132, unit=5).items() <= drawn(page).items())
    with page.tab.expect_download() as download:
        page.tab.get_by_role("button", name="Download SVG").click()
    assert download.value.suggested_filename.startswith("layer-1-unit-5")
    svg = ElementTree.parse(download.value.path()).getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert walked(model, 132, unit=5)["h'"] in "".join(svg.itertext())


def test_every_kind_of_cell_is_drawn_with_strips_of_its_gates(open_page, tmp_path):
    text = "the sea was calm.😀"
    models = {cell: make("char", cell, dtype=torch.float32, layers=2, hidden_size=6) for cell in STRIPS}
    for cell, model in models.items():
        model.save(tmp_path / "runs" / cell)
    with serving(tmp_path, "--models", "runs", "--port", free_port()) as server:
        page = open_page(until_ready(server), tab_name="Look inside")
        page.look_into(text)
        for cell, model in models.items():
            page.choose_model(cell)
            page.tab.locator("#inside:not(.editing, .stale)").wait_for()
            page.tab.locator("#inside-view [data-index='9']").click()
            shown = walked(model, 9, text=text).items()
            page.wait_for(lambda shown=shown: shown <= drawn(page).items())
            assert page.tab.locator("#inside-cell svg text.token").last.text_content() == "😀"
            names = page.tab.locator("#inside-cell svg text.strong.small").all_text_contents()
            assert names[-len(STRIPS[cell]) :] == STRIPS[cell]
