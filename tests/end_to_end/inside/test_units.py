"""Units in the Look inside tab: their colors, the search for them, the gallery, and What if."""

import pytest

from lm.insight.properties import PROPERTIES
from lm.insight.trace import trace_text
from lm.insight.units import find_units
from tests.end_to_end.inside.tab import (
    TEXT,
    find_units_for_whitespace,
    levels,
    opacity,
    section,
    wait_until_in_view,
)
from tests.end_to_end.page import sizes

pytestmark = pytest.mark.browser
# Whether a name or description in the gallery is cut.
IS_CUT = """() => [...document.querySelectorAll("#inside-gallery :is(.title, .unit)")]
    .some((text) => text.scrollWidth > text.clientWidth)"""


def test_a_unit_and_a_gate_color_the_text_by_their_values(page, model):
    trace = trace_text(model, TEXT * 3)
    page.tab.locator("#inside-unit input").fill("5")
    page.tab.locator("#inside-unit input").press("Tab")

    def shown(name):
        values = trace.values(0, name, 5)
        return lambda: (
            [tooltip for _, _, tooltip in levels(page)] == [f"{name} = {value:+.3f}" for value in values]
        )

    page.wait_for(shown("h"))
    assert page.tab.get_by_label("Hidden unit").is_checked()
    page.tab.get_by_label("State or gate").click()
    page.tab.get_by_role("option", name="f (forget gate)").click()
    page.wait_for(shown("f"))
    assert min(level for _, level, _ in levels(page)) >= 0  # a gate is never negative


def test_units_that_track_a_property_are_found_and_shown(page):
    section(page, "Unit")
    page.tab.locator("#inside-find").click()
    line = page.tab.locator("#inside-measure")
    page.wait_for(lambda: "Nothing in this text has the property" in line.inner_text())  # no quotes
    find_units_for_whitespace(page)
    units = page.tab.locator("#inside-found label")
    page.wait_for(lambda: units.count() == 10)
    assert float(units.first.inner_text().split(": ")[1].split(" ")[0]) > 0.9
    assert "chance" in line.inner_text()
    page.wait_for(lambda: page.tab.get_by_label("Hidden unit").is_checked())
    before = levels(page)
    units.nth(1).click()
    page.wait_for(lambda: levels(page) != before)
    page.look_into("Another text.")  # these units are not its best
    page.wait_for(lambda: not units.count() and not line.inner_text())


@pytest.mark.slow
def test_units_can_track_a_regular_expression_and_an_invalid_one_is_an_error(page):
    section(page, "Unit")
    page.tab.get_by_label("Find units that track").click()
    page.tab.get_by_role("option", name="Regular expression").click()
    page.tab.locator("#inside-pattern :is(input, textarea)").fill("(unclosed")
    page.tab.locator("#inside-find").click()
    page.wait_for(lambda: "is invalid" in page.tab.locator("#inside-measure").inner_text())
    page.tab.locator("#inside-pattern :is(input, textarea)").fill("[aeiou]")
    page.tab.locator("#inside-find").click()
    page.wait_for(lambda: page.tab.locator("#inside-found label").count() == 10)


@sizes
def test_the_gallery_shows_a_unit_for_each_property_and_saves_images(open_page, server, size, model):
    page = open_page(server, size=size, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    section(page, "Gallery")
    rows = page.tab.locator("#inside-gallery .row")
    page.wait_for(lambda: rows.count() >= 5)
    assert "Orange: above zero. Blue: below zero." in page.tab.locator("#inside-gallery .note").inner_text()
    page.tab.set_viewport_size({**size, "width": min(size["width"], 1280)})
    assert not page.tab.evaluate(IS_CUT)
    row = rows.filter(has_text="Whitespace")
    row.focus()
    page.tab.keyboard.press("Enter")
    page.wait_for(lambda: page.tab.get_by_label("Hidden unit").is_checked())
    found = find_units(trace_text(model, TEXT * 3), PROPERTIES["white_space"](TEXT * 3)).units[0]
    assert f"Layer {found.layer + 1}, unit {found.unit}, {found.name}: {found.score:.2f}" in row.inner_text()
    assert page.tab.locator("#inside-unit input").input_value() == str(found.unit)
    assert row.get_attribute("aria-pressed") == "true"
    for kind, start in (("SVG", b"<svg "), ("PNG", b"\x89PNG")):
        with page.tab.expect_download() as download:
            page.tab.locator("#inside-image").get_by_role("button", name=kind).click()
        assert download.value.path().read_bytes().startswith(start)
        assert download.value.suggested_filename.endswith(
            f"layer {found.layer + 1} unit {found.unit} {found.name}.{kind.lower()}"
        )
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    before = rows.first.inner_text()
    page.look_into(TEXT * 2)  # the rows are those of the new text
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 2))
    page.tab.locator("#inside-image").scroll_into_view_if_needed()
    page.wait_for(lambda: rows.count() >= 5 and rows.first.inner_text() != before)
    assert not page.messages()


@sizes
def test_a_unit_can_be_switched_off_or_stuck_and_the_model_writes_again(open_page, server, size):
    page = open_page(server, size=size, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    section(page, "What if")
    run, texts = page.tab.locator("#inside-clamp"), page.tab.locator("#inside-clamped .text")
    run.click()
    page.wait_for(lambda: texts.count() == 2)
    first = texts.all_inner_texts()
    assert first[0] != first[1] and page.tab.locator("#inside-clamped mark").count() == 2
    page.tab.get_by_label("The unit is").click()
    page.tab.get_by_role("option", name="stuck at a value").click()
    page.tab.get_by_label("Value", exact=True).fill("-1")
    run.click()
    page.wait_for(lambda: "h = -1" in page.tab.locator("#inside-clamped").inner_text())
    second = texts.all_inner_texts()
    assert second[0] == first[0] and second[1] != first[1]  # the same random numbers
    wait_until_in_view(page, texts.first)
    result = page.tab.locator("#inside-clamped")
    assert "stale" not in result.get_attribute("class")
    page.tab.get_by_label("Value", exact=True).fill("7")
    page.wait_for(lambda: "stale" in result.get_attribute("class"))  # until it is computed again
    run.click()
    page.wait_for_message("cannot be clamped to 7")
    page.tab.get_by_label("Value", exact=True).fill("-1")
    run.click()
    page.wait_for(lambda: opacity(result) == 1)
    page.tab.locator("#inside-edit").click()
    page.tab.keyboard.type("Another text. ")
    page.wait_for(lambda: opacity(result) < 0.5)
    section(page, "Sentences")  # have nothing to do with the text
    assert opacity(page.tab.locator("#inside-score")) == 1
    page.tab.locator("#inside-look").click()
    page.wait_for(lambda: page.tab.locator("#inside:not(.editing, .stale)").count())
    page.wait_for(lambda: "stale" in result.get_attribute("class") and 0.4 < opacity(result) < 0.5)
