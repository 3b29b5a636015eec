"""The Look inside tab as its tests use it."""

TEXT = (
    "The sea was calm. A small boat went out to find where light comes from at night, and 12 more. <b>☃</b>\n"
)


def section(page, name):
    tabs = page.tab.locator("#inside-sections")
    if not tabs.get_by_role("tab", name=name, exact=True).count():  # on a phone, some are in a menu
        tabs.locator(".overflow-menu > button").click()
        return tabs.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    tabs.get_by_role("tab", name=name, exact=True).click()


def levels(page):
    """[(text, level, tooltip), ...] of the tokens in the view."""
    script = """() => [...document.querySelectorAll("#inside-view [data-index]")].map(
        (e) => [e.textContent, Number(e.dataset.level || 0), e.title])"""
    return page.tab.evaluate(script)


def opacity(locator):
    """The opacity of an element and all that it is in."""
    return locator.evaluate("""(element) => {
        let opacity = 1;
        for (; element; element = element.parentElement) opacity *= getComputedStyle(element).opacity;
        return opacity;
    }""")


def wait_until_in_view(page, locator, part=None):
    """Wait until an element, or the first `part` pixels of it, is on the screen."""

    def is_in_view():
        box = locator.bounding_box()
        height = min(box["height"], part or box["height"])
        return box["y"] >= 0 and box["y"] + height <= page.tab.viewport_size["height"]

    page.wait_for(is_in_view)


def find_units_for_whitespace(page):
    section(page, "Unit")
    page.tab.get_by_label("Find units that track").click()
    page.tab.get_by_role("option", name="Whitespace").click()
    page.tab.locator("#inside-find").click()
