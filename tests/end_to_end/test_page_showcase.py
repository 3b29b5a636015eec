"""The showcase that a first visit begins with."""

import time

import pytest

from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import sizes

pytestmark = pytest.mark.browser


class Showcase:
    def __init__(self, page):
        self.page, self.tab = page, page.tab
        self.box, self.link = page.tab.locator("#showcase"), page.tab.locator("#showcase-link")

    @property
    def heading(self):
        return self.box.locator("h2").inner_text()

    @property
    def text(self):
        return "".join(self.box.locator("[data-index]").all_text_contents())

    def press(self, name):
        self.tab.get_by_role("button", name=name, exact=True).click()


@sizes
def test_a_first_visit_shows_units_and_their_text_goes_on_in_the_write_tab(open_page, server, size):
    page = open_page(server, size=size, first=True)
    shown = Showcase(page)
    page.wait_for(lambda: shown.text)
    first = shown.text
    page.choose_model("pretrained")
    page.wait_for(lambda: shown.text != first)
    assert shown.heading.startswith("One of this model's 512 units has learned to ")
    assert shown.box.locator('[data-level^="-"]').count() and shown.box.locator('[data-level="5"]').count()
    box = shown.box.bounding_box()
    assert box["y"] + box["height"] <= size["height"]
    headings = {shown.heading}
    for _ in range(2):
        shown.press("Show me another unit")
        page.wait_for(lambda: shown.heading not in headings)
        headings.add(shown.heading)
    text = shown.text
    page.set(Length=5)
    shown.press("Let it write")
    page.wait_for(lambda: len(page.text) > len(text))
    assert page.at_rest().startswith(text) and not shown.box.is_visible()


@sizes
def test_a_closed_showcase_stays_closed_until_the_link_is_pressed(open_page, server, size):
    page = open_page(server, size=size, first=True)
    shown = Showcase(page)
    page.wait_for(lambda: shown.text)
    assert not shown.link.is_visible()
    shown.press("Close")
    page.wait_for(lambda: not shown.box.is_visible())
    assert shown.link.evaluate("e => e === document.activeElement")
    page.reload()
    shown.link.wait_for()
    assert not shown.box.is_visible()
    shown.link.press("Enter")
    page.wait_for(lambda: shown.text)
    assert shown.box.is_visible() and not shown.link.is_visible()
    page.go_to("Compare")
    page.wait_for(lambda: not shown.box.is_visible())


def test_letting_it_write_keeps_the_text_of_the_user_in_its_document(open_page, server):
    page = open_page(server, first=True)
    shown = Showcase(page)
    page.wait_for(lambda: shown.text)
    text = shown.text
    page.set(Length=5)
    page.editor.press_sequentially("My own words")
    shown.press("Let it write")
    page.wait_for(lambda: len(page.text) > len(text))
    assert page.at_rest().startswith(text)
    stored = page.tab.evaluate("async () => (await lm.storage.list()).map((one) => one.title)")
    assert "My own words" in stored


@pytest.mark.slow
def test_the_first_colored_unit_comes_within_two_and_a_half_seconds_and_800_kb(browser, tmp_path):
    with serving(tmp_path, "--port", free_port()) as server:
        until_ready(server)
        tab = browser.new_context().new_page()
        network, sizes = tab.context.new_cdp_session(tab), []
        network.send("Network.enable")
        network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        begin = time.monotonic()
        tab.goto(server.address)
        tab.locator("#showcase-text [data-level]").first.wait_for()
        assert time.monotonic() - begin < 2.5
        tab.locator("#facts table").first.wait_for()
        assert 0 < sum(sizes) < 800_000
        tab.close()


def test_examples_are_in_the_style_of_the_model_until_the_user_writes(open_page, server):
    page = open_page(server)
    page.wait_for(lambda: "For example:" in page.editor.get_attribute("placeholder"))
    page.go_to("Look inside")
    text = page.tab.locator("#inside-text textarea")
    view = page.tab.locator("#inside-view .tokens")
    page.wait_for(lambda: "boat" in (view.text_content() or ""))
    page.choose_model("pretrained")
    page.wait_for(lambda: text.input_value() and "boat" not in view.text_content())
    page.wait_for(lambda: view.text_content().strip() == text.input_value().strip())
    page.look_into("My own words")
    page.choose_model("boat")
    page.tab.wait_for_timeout(300)
    assert text.input_value() == "My own words"
