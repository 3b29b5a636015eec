"""The tour in a browser."""

import pytest

from tests.end_to_end.page import DESKTOP, PHONE

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    "size", [DESKTOP, pytest.param(PHONE, marks=pytest.mark.slow)], ids=["desktop", "phone"]
)
def test_the_tour_shows_each_tab_with_the_shipped_model(open_page, server, size):
    page = open_page(server, size=size)
    page.tab.get_by_role("button", name="Quick tour").click()
    page.set(Length=40)
    page.tab.get_by_role("button", name="1. Generate text").click()
    page.wait_for(lambda: "40 tokens" in page.status)
    assert page.chosen_model() == "pretrained"
    page.tab.get_by_role("button", name="2. See alternatives").click()
    page.wait_for(lambda: page.tab.locator("#alternatives [role=option]").count() == 10)
    page.tab.get_by_role("button", name="3. Find surprises").click()
    page.wait_for(lambda: page.tab.locator("#inside-places tr").count() == 10)
    page.tab.get_by_role("button", name="4. Find a quote detector").click()
    page.wait_for(lambda: page.tab.locator("#inside-found label").count() == 10)
    best = page.tab.locator("#inside-found label").first.inner_text()
    assert float(best.split(": ")[1].split(" ")[0]) > 0.95
    page.tab.get_by_role("button", name="5. Compare two settings").click()
    page.wait_for(
        lambda: page.tab.get_by_role("tab", name="Compare").get_attribute("aria-selected") == "true"
    )
    page.tab.get_by_role("button", name="6. Train your own model").click()
    page.wait_for(lambda: page.tab.get_by_role("button", name="Start training").is_visible())
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
